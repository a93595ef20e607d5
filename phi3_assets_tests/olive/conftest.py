"""The tiny chain of phi3_assets_tests.steps, for tests of what the steps are made of."""

from phi3_assets_tests.steps.conftest import run_step, tiny_base, tiny_corpus

__all__ = ["run_step", "tiny_base", "tiny_corpus"]
