"""MLflow: off unless the environment names a server, and then it must be installed."""

from pathlib import Path

import pytest

from phi3_assets.core.errors import UserError
from phi3_assets.steps import LORA_ADAPTER
from phi3_assets.training import fit
from phi3_assets_tests.steps.conftest import Made, RunStep

URI = "MLFLOW_TRACKING_URI"


def test_off_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URI, raising=False)
    assert fit.tracker() == "none"


@pytest.mark.parametrize("uri", ["http://tracking:5000", "file:/tmp/mlruns"])
def test_missing_mlflow_is_an_error(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URI, uri)
    monkeypatch.setattr(fit, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"MLflow is not installed.*phi3-assets\[mlflow\]"):
        fit.tracker()


def test_job_of_azureml_need_not_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """AzureML sets the variable in each of its jobs, asked or not."""
    monkeypatch.setenv(URI, "azureml://westeurope.api.azureml.ms/mlflow/v1.0/subscriptions/0")
    monkeypatch.setattr(fit, "find_spec", lambda _: None)
    assert fit.tracker() == "none"


def test_numbers_arrive(tiny_base: Made, tiny_corpus: Path, run_step: RunStep, tmp_path: Path, monkeypatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.setenv(URI, f"file:{tmp_path}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "tiny")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    inputs = {"base_model": tiny_base.path, "formatted_corpus": tiny_corpus}
    tracked = run_step(LORA_ADAPTER, inputs)
    client = mlflow.MlflowClient(f"file:{tmp_path}")
    (run,) = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [point.step for point in history] == [1, 2, 3]
    assert history[-1].value == pytest.approx(tracked.metrics["final_loss"])
    monkeypatch.delenv(URI)
    untracked = run_step(LORA_ADAPTER, inputs)
    weights = "adapter_model.safetensors"
    assert (untracked.path / weights).read_bytes() == (tracked.path / weights).read_bytes()
