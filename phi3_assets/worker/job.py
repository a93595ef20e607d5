"""The command job that runs one step on a cluster: `python -m phi3_assets.worker.job --job FOLDER ...`.

Inputs are mounted, and so is where checkpoints are kept; the artefact is written to a folder that the service uploads.
What is told goes to the orchestrator through blobs, with the job's own managed identity. Of several processes that work
together the first speaks and writes; the others have folders of their own, which nobody keeps.
"""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, open_dagster_pipes

from phi3_assets.azure.clients import container_client, job_credential
from phi3_assets.azure.secrets import read_secret
from phi3_assets.core.step import Interruption
from phi3_assets.data.arrow import leave_pandas_out
from phi3_assets.models.environment import settings
from phi3_assets.steps import step_of
from phi3_assets.training.ranks import given_rank
from phi3_assets.worker.__main__ import run_under_dagster
from phi3_assets.worker.blob_messages import BlobMessageWriter
from phi3_assets.worker.job_file import JOB_FILE, JobFile
from phi3_assets.worker.mirror import Mirror
from phi3_assets.worker.notice import Notice
from phi3_assets.worker.running import help_with_step
from phi3_assets.worker.step_file import StepFile

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential


def main(arguments: list[str]) -> int:
    """Run the step of the job file; the exit code is 0 only if the artefact is sealed."""
    given = _arguments(arguments)
    if DAGSTER_PIPES_CONTEXT_ENV_VAR not in os.environ:
        sys.exit("An orchestrator starts this; by hand use: python -m phi3_assets.worker STEP_FILE")
    os.environ.update(settings())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    job = JobFile.from_json((given.job / JOB_FILE).read_text(encoding="utf-8"))
    if step_of(job.step.call.step).without_pandas:
        leave_pandas_out()
    with tempfile.TemporaryDirectory(prefix="phi3-") as scratch:
        return _run(job, given, Path(scratch))


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="phi3_assets.worker.job", description="Runs one step as a command job.")
    parser.add_argument("--job", type=Path, required=True, help="folder with job.json")
    parser.add_argument("--artefact", type=Path, required=True, help="folder to write the artefact to")
    parser.add_argument("--kept", type=Path, help="mounted folder where checkpoints outlive this machine")
    parser.add_argument("--input", action="append", default=[], metavar="NAME=FOLDER", help="an input, mounted")
    return parser.parse_args(arguments)


def _run(job: JobFile, given: argparse.Namespace, scratch: Path) -> int:
    credential = job_credential(job.client_id)
    step_file = _laid_out(job.step, dict(word.split("=", 1) for word in given.input), given.artefact, scratch)
    if (rank := given_rank(os.environ)) is not None and not rank.leads:
        note = partial(print, flush=True)
        _take_token(job, credential)
        with Notice(_nothing_to_secure, note) as notice:
            help_with_step(replace(step_file, output=str(scratch / "artefact")), note, notice)
        return 0
    container = container_client(job.account_url, job.container, credential)
    with open_dagster_pipes(message_writer=BlobMessageWriter(container)) as pipes:
        return run_under_dagster(step_file, pipes, partial(_machine, job, credential, Path(step_file.work), given.kept))


def _take_token(job: JobFile, credential: "TokenCredential") -> None:
    """The hub's token, into this process alone: a job's environment can be read by all who may read the job."""
    if job.hf_token_secret:
        os.environ["HF_TOKEN"] = read_secret(job.key_vault, job.hf_token_secret, credential)


@contextmanager
def _machine(
    job: JobFile, credential: "TokenCredential", work: Path, kept: Path | None, log: Callable[[str], None]
) -> Iterator[Interruption | None]:
    """This machine, which may be taken away: with what an earlier one kept, and keeping what is to be kept."""
    _take_token(job, credential)
    if kept is None:
        yield None
        return
    mirror = Mirror(work, kept, log)
    mirror.restore()
    with mirror, Notice(mirror.finish, log) as notice:
        yield notice


def _nothing_to_secure() -> None:
    """The first of several processes has the checkpoint of all."""


def _laid_out(step: StepFile, inputs: dict[str, str], output: Path, scratch: Path) -> StepFile:
    """The step file with the paths of this machine."""
    return replace(
        step,
        inputs={name: replace(item, path=inputs[name]) for name, item in step.inputs.items()},
        output=str(output),
        work=str(scratch / "work"),
        cache=str(scratch / "cache"),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
