"""Runs one step: `python -m phi3_assets.worker STEP_FILE`, in a process group here or as a command job elsewhere.

The step file is all it needs: the call, the directory and digest of each input, and the directories to write to. It
verifies what it opens, runs the step's function, and writes the manifest last. What it tells while running goes
through Dagster Pipes; without Dagster (`python -m phi3_assets.worker` by hand) it goes to stdout.

What is said to the orchestrator, as Pipes custom messages: {"progress": {...numbers}} and
{"failed": text, "transient": bool}.
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path

from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, PipesContext, open_dagster_pipes

from phi3_assets.core.errors import UserError
from phi3_assets.core.step import Interruption
from phi3_assets.data.arrow import leave_pandas_out
from phi3_assets.models.environment import settings
from phi3_assets.steps import step_of
from phi3_assets.worker.processes import die_with_parent
from phi3_assets.worker.running import describe_failure, is_transient, run_step
from phi3_assets.worker.step_file import StepFile


def main(path: str) -> int:
    """Run the step of the file at `path`; the exit code is 0 only if the artefact is sealed."""
    die_with_parent()
    # `nohup phi3 run &` hands ignored signals down; a step must be stoppable nevertheless.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.update(settings())
    step_file = StepFile.from_json(Path(path).read_text(encoding="utf-8"))
    if step_of(step_file.call.step).without_pandas:
        leave_pandas_out()
    if DAGSTER_PIPES_CONTEXT_ENV_VAR not in os.environ:
        return run_by_hand(step_file)
    with open_dagster_pipes() as pipes:
        return run_under_dagster(step_file, pipes)


# From what shows a line to the user to what says that the machine is about to be taken away.
Machine = Callable[[Callable[[str], None]], AbstractContextManager[Interruption | None]]


def one_that_stays(log: Callable[[str], None]) -> AbstractContextManager[None]:
    """A machine that is not taken away, or not with notice."""
    return nullcontext()


def run_under_dagster(step_file: StepFile, pipes: PipesContext, machine: Machine = one_that_stays) -> int:
    """Run with logs, progress and failure reported through Pipes, on a machine that may say that it will be gone."""
    # Olive's passes run with sys.stdout turned away.
    note = partial(print, file=sys.stdout, flush=True)

    def log(line: str) -> None:
        note(line)
        pipes.log.info(line)

    def progress(**numbers: float) -> None:
        pipes.report_custom_message({"progress": numbers})

    try:
        with machine(log) as interruption:
            run_step(step_file, log, progress, note, interruption)
    except Exception as error:
        message, user_error = describe_failure(error, step_file)
        pipes.report_custom_message({"failed": message, "transient": not user_error and is_transient(error)})
        with suppress(OSError):  # the log is on the disk that may be what is full
            traceback.print_exc()
        return 1
    return 0


def run_by_hand(step_file: StepFile) -> int:
    """Run without an orchestrator: everything goes to the terminal."""
    try:
        note = partial(print, file=sys.stdout, flush=True)
        manifest = run_step(step_file, note, lambda **numbers: note(json.dumps(numbers)), note)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(manifest.ref.to_dict()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
