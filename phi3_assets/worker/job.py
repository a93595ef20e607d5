"""The command job that runs one step on a cluster: `python -m phi3_assets.worker.job --job FOLDER ...`.

Inputs are mounted, and so is where checkpoints are kept; the artefact is written to a folder that the service uploads.
What is told goes to the orchestrator through blobs, with the job's own managed identity. Of several processes that work
together the first speaks and writes; the others have folders of their own, which nobody keeps.
"""

import argparse
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, open_dagster_pipes

from phi3_assets.azure.clients import container_client, job_credential
from phi3_assets.azure.secrets import hub_token
from phi3_assets.data.arrow import leave_pandas_out
from phi3_assets.models.environment import SETTINGS
from phi3_assets.steps import step_of
from phi3_assets.worker.__main__ import run_under_dagster
from phi3_assets.worker.blob_messages import BlobMessageWriter
from phi3_assets.worker.job_file import JOB_FILE, JobFile
from phi3_assets.worker.running import run_step
from phi3_assets.worker.step_file import StepFile


def main(arguments: list[str]) -> int:
    """Run the step of the job file; the exit code is 0 only if the artefact is sealed."""
    parser = argparse.ArgumentParser(prog="phi3_assets.worker.job", description=__doc__)
    parser.add_argument("--job", type=Path, required=True, help="folder with job.json")
    parser.add_argument("--artefact", type=Path, required=True, help="folder to write the artefact to")
    parser.add_argument("--kept", type=Path, help="mounted folder where checkpoints outlive this machine")
    parser.add_argument("--input", action="append", default=[], metavar="NAME=FOLDER", help="an input, mounted")
    given = parser.parse_args(arguments)
    os.environ.update(SETTINGS)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    job = JobFile.from_json((given.job / JOB_FILE).read_text(encoding="utf-8"))
    folders = dict(word.split("=", 1) for word in given.input)
    if step_of(job.step.call.step).without_pandas:
        leave_pandas_out()
    with tempfile.TemporaryDirectory(prefix="phi3-") as scratch:
        step_file = _laid_out(job.step, folders, Path(scratch), given.artefact if _leads() else Path(scratch) / "out")
        return _run(job, step_file, given.kept)


def _run(job: JobFile, step_file: StepFile, kept: Path | None) -> int:
    credential = job_credential(job.client_id)
    if job.hf_token_secret:
        # In this process alone: a job's environment can be read by everybody who may read the job.
        os.environ["HF_TOKEN"] = hub_token(job.key_vault, job.hf_token_secret, credential)
    if not _leads():
        note = partial(print, flush=True)
        with _interruption(step_file, kept):
            run_step(step_file, note, lambda **numbers: None, note)
        return 0
    if DAGSTER_PIPES_CONTEXT_ENV_VAR not in os.environ:
        sys.exit("This is started by an orchestrator; by hand use: python -m phi3_assets.worker STEP_FILE")
    container = container_client(job.account_url, job.container, credential)
    with open_dagster_pipes(message_writer=BlobMessageWriter(container)) as pipes:
        return run_under_dagster(step_file, pipes)


def _leads() -> bool:
    return int(os.environ.get("RANK", "0")) == 0
