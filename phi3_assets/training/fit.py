"""One training from beginning to end in this process: read, forecast, train."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from phi3_assets.core.errors import UserError
from phi3_assets.core.machine import multiplies_bfloat16
from phi3_assets.core.step import Interruption, NoInterruption, ProgressCallback
from phi3_assets.models import environment
from phi3_assets.olive import configs, corpus
from phi3_assets.olive.passes import olive_log, run_pass
from phi3_assets.training.adapter import out_of_memory
from phi3_assets.training.attention import chosen
from phi3_assets.training.callback import Training, training_callback
from phi3_assets.training.checkpoints import StopRequest
from phi3_assets.training.estimate import Estimate
from phi3_assets.training.forecast import Forecast, peak_bytes
from phi3_assets.training.passes import training_pass


@dataclass(frozen=True)
class Job:
    """What a training is made of; it can be sent to another process.

    Attributes:
        base_model: Directory of the base model.
        train_file: train.parquet of the corpus.
        params: Recipe fields of the step, settings among them.
        checkpoints: Where the trainer keeps its checkpoints, and resumes from.
        scratch: Directory for Olive's output, the adapter among it.
        processes_here: Processes of this machine that train it.
        apart: Whether each process has folders of its own, as on several machines, and not these in common.
        replay_file: Rows that are trained on beside the corpus; see `phi3_assets.training.replay`.
    """

    base_model: Path
    train_file: Path
    params: dict[str, Any]
    checkpoints: Path
    scratch: Path
    processes_here: int = 1
    apart: bool = False
    replay_file: Path | None = None


@dataclass(frozen=True)
class Callbacks:
    """What a training calls to tell what it does, and to be told; see `StepContext`."""

    log: Callable[[str], None]
    note: Callable[[str], None]
    progress: ProgressCallback
    interruption: Interruption = field(default_factory=NoInterruption)


@dataclass(frozen=True)
class Fitted:
    """What a training turned out to be; the adapter is in the job's scratch directory.

    Attributes:
        training: Its history.
        eval_rows: Held-out rows.
        estimate: What it was expected to need.
        estimated_seconds: How long it was expected to take.
        peak_memory_bytes: What it needed, of one process.
        device: Name of the device.
    """

    training: Training
    eval_rows: int
    estimate: Estimate
    estimated_seconds: float
    peak_memory_bytes: int
    device: str


def fit(job: Job, callbacks: Callbacks, *, leads: bool = True) -> Fitted:
    """Train an adapter.

    Args:
        job: What is trained.
        callbacks: What to call.
        leads: False for all but one of several processes that train together; they make no forecast.

    Raises:
        UserError: No rows, more memory or disk needed than there is, a loss that is not finite, or no MLflow where it
            is asked for.
    """
    environment.prepare()
    params = job.params
    order = configs.corpus_order(params)
    eval_share = params["eval_share"]
    rows = corpus.read_corpus(job.train_file, order, eval_share, job.replay_file)
    eval_rows = corpus.read_eval_rows(job.train_file, eval_share) if eval_share else None
    data = corpus.data_config(job.train_file, order, eval_share, job.replay_file)
    training = Training(
        rows=rows.rows,
        tokens=rows.tokens,
        supervised_tokens=rows.supervised_tokens,
        total_rows=len(rows),
        step_rows=order.step_rows,
        logging_steps=params["logging_steps"],
        patience=params["early_stopping_patience"],
        progress=callbacks.progress,
        note=callbacks.note,
    )
    callbacks.log(f"Training on {rows.rows} rows, {rows.supervised_tokens} supervised of {rows.tokens} tokens")
    if eval_rows:
        callbacks.log(f"{eval_rows.rows} more are held out, and evaluated every {params['eval_steps']} steps")
    report_to = tracker() if leads else "none"
    stop = StopRequest()
    with olive_log():
        import torch
        import transformers
        from olive.passes.pytorch import lora  # noqa: F401  (loads what trains, which the forecast counts)

        corpus.register()
        on_gpu = torch.cuda.is_available()
        if params["torch_dtype"] == "bfloat16" and not on_gpu and not multiplies_bfloat16():
            callbacks.log(
                "This processor only emulates bfloat16, which may be many times slower than float32: see torch_dtype"
            )
        sharing = 1 if on_gpu else job.processes_here
        forecast = Forecast(job.base_model, params, rows, callbacks.log, on_gpu=on_gpu, sharing=sharing)
        if leads:
            forecast.refuse_if_too_large(job.scratch.parent)
        # The adapter's first values are drawn when it is created, before the trainer sets the seed
        # (https://github.com/huggingface/peft/issues/951 and others).
        transformers.set_seed(params["seed"])
        try:
            run_pass(
                training_pass(
                    params["method"],
                    list(params["target_modules"]),
                    chosen(params, on_gpu=on_gpu),
                    training_callback(training, stop, callbacks.interruption, apart=job.apart),
                    forecast.dry_run if leads else None,
                    eval_rows,
                ),
                configs.fine_tuning(params, data, job.checkpoints, on_gpu=on_gpu, report_to=report_to),
                job.base_model,
                job.scratch,
            )
        except (RuntimeError, MemoryError) as error:
            raise out_of_memory(error, params) or error from error
        finally:
            stop.disarm()
    return Fitted(
        training=training,
        eval_rows=eval_rows.rows if eval_rows else 0,
        estimate=forecast.estimate,
        estimated_seconds=forecast.seconds,
        peak_memory_bytes=peak_bytes(on_gpu=on_gpu),
        device=torch.cuda.get_device_name() if on_gpu else "cpu",
    )


def tracker() -> str:
    """Where the trainer sends its numbers: to MLflow if the environment names a server, else nowhere.

    It is not a recipe field, because where numbers go cannot change what is learnt.

    Raises:
        UserError: MLflow is not installed.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if find_spec("mlflow") is not None:
        return "mlflow" if uri else "none"
    # An AzureML job sets it by itself.
    if uri and not uri.startswith("azureml:"):
        raise UserError(
            "MLFLOW_TRACKING_URI is set, but MLflow is not installed where the step runs. Install it with "
            "pip install 'phi3-assets[mlflow]', or unset the variable."
        )
    return "none"
