"""Olive's habits that must not reach a user: unknown keys ignored, failures swallowed, a log that nobody sees."""

import logging
from pathlib import Path
from typing import Any

import pytest

from phi3_assets.core.errors import UserError
from phi3_assets.olive.passes import olive_log, run_pass
from phi3_assets_tests.steps.conftest import Made


def test_unknown_key_is_an_error(tiny_base: Made, tmp_path: Path) -> None:
    """Olive 0.13 ignores the old names lora_r and lora_alpha, and trains with its defaults."""
    with pytest.raises(UserError, match="Olive's pass LoRA knows no key 'lora_alpha'"):
        run_pass("LoRA", {"train_data_config": {"name": "train"}, "lora_alpha": 64}, tiny_base.path, tmp_path)


def test_unknown_training_argument_is_an_error(tiny_base: Made, tmp_path: Path) -> None:
    config = {"train_data_config": {"name": "train"}, "training_args": {"evaluation_strategy": "steps"}}
    with pytest.raises(UserError, match=r"training_args of LoRA knows no key 'evaluation_strategy'.*eval_strategy"):
        run_pass("LoRA", config, tiny_base.path, tmp_path)


def test_rejected_configuration_says_why(tiny_base: Made, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="rejects its configuration: FP16 is not supported on CPU"):
        run_pass("ModelBuilder", {"precision": "fp16"}, tiny_base.path, tmp_path)


def test_exception_of_a_pass_surfaces(tiny_base: Made, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="No adapter path found in the model"):
        run_pass("MergeAdapterWeights", {}, tiny_base.path, tmp_path)


def test_pass_without_a_model_fails_with_its_own_reason(tiny_base: Made, tmp_path: Path) -> None:
    with olive_log():
        from olive.passes import Pass

    class Giving(Pass):  # type: ignore[misc]
        @classmethod
        def _default_config(cls, accelerator_spec: Any) -> dict[str, Any]:
            return {}

        def _run_for_config(self, model: Any, config: Any, output_model_path: str) -> Any:
            raise AssertionError

        def run(self, model: Any, output_model_path: str) -> Any:
            logging.getLogger("olive.passes.giving").warning("the moon is in the wrong quarter")

    with pytest.raises(UserError, match="Giving ended without a model: the moon is in the wrong quarter"):
        run_pass(Giving, {}, tiny_base.path, tmp_path)


def test_olive_logs_where_everybody_does(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    with olive_log() as log:
        logging.getLogger("olive.engine").warning("a warning of Olive")
    assert "a warning of Olive" in caplog.text
    assert log.reason() == "a warning of Olive"
    assert "a warning of Olive" not in capsys.readouterr().out
