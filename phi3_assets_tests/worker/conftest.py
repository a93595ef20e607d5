"""The tiny base model and corpus of the steps' tests, for what is tried on a real training."""

from phi3_assets_tests.steps.conftest import inputs, run_step, tiny_base, tiny_corpus

__all__ = ["inputs", "run_step", "tiny_base", "tiny_corpus"]
