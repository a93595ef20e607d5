"""Runs one step: `python -m phi3_assets.worker STEP_FILE`, in a process group here or as a command job elsewhere.

The step file is all it needs: the call, the directory and digest of each input, and the directories to write to. It
verifies what it opens, runs the step's function, and writes the manifest last. What it tells while running goes
through Dagster Pipes; without Dagster (`python -m phi3_assets.worker` by hand) it goes to stdout.

What is said to the orchestrator, as Pipes custom messages: {"progress": {...numbers}} and
{"failed": text, "user_error": bool}.
"""

import errno
import json
import os
import platform
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path

from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, PipesContext, open_dagster_pipes

from phi3_assets.data.arrow import leave_pandas_out
from phi3_assets.errors import UserError
from phi3_assets.manifest import (
    FileEntry,
    Manifest,
    digest_of,
    fingerprint,
    hash_files,
    list_files,
    read_manifest,
    seal,
    verify,
)
from phi3_assets.models.environment import SETTINGS
from phi3_assets.processes import die_with_parent
from phi3_assets.step import StepCall, StepContext, installed_versions
from phi3_assets.steps import FORMATTED_CORPUS, RAW_DATASET, STEPS

DATA_STEPS = (RAW_DATASET.name, FORMATTED_CORPUS.name)


@dataclass(frozen=True)
class StepInput:
    """One input directory.

    Attributes:
        path: The directory, on the machine that runs the step.
        digest: Content digest that it must have.
        artefact: True: it holds a manifest; False: plain files of the user's.
    """

    path: str
    digest: str
    artefact: bool


@dataclass(frozen=True)
class StepFile:
    """What the worker is handed, as JSON.

    Attributes:
        call: Step, parameters, input digests, library versions.
        inputs: Where the inputs are.
        output: Empty directory to fill.
        work: Directory for checkpoints; belongs to this identity.
        cache: Directory for downloads.
        execution: Name of the execution, for the record.
    """

    call: StepCall
    inputs: dict[str, StepInput]
    output: str
    work: str
    cache: str
    execution: str

    def to_json(self) -> str:
        """The text of the step file."""
        return json.dumps(
            {
                "call": self.call.to_dict(),
                "inputs": {name: vars(item) for name, item in self.inputs.items()},
                "output": self.output,
                "work": self.work,
                "cache": self.cache,
                "execution": self.execution,
            },
            indent=1,
        )

    @classmethod
    def from_json(cls, text: str) -> "StepFile":
        """Inverse of `to_json`."""
        value = json.loads(text)
        return cls(
            call=StepCall(**value.pop("call")),
            inputs={name: StepInput(**item) for name, item in value.pop("inputs").items()},
            **value,
        )


def run_step(
    step_file: StepFile,
    log: Callable[[str], None],
    progress: Callable[..., None],
    note: Callable[[str], None] = print,
) -> Manifest:
    """Verify the inputs, run the step's function and seal its output.

    Raises:
        UserError: Versions differ from those of the identity, an input is damaged or changed, or the step says so.
    """
    call = step_file.call
    step = STEPS[call.step]
    check_versions(call)
    for name, item in step_file.inputs.items():
        check_input(name, item)
    output = Path(step_file.output)
    output.mkdir(parents=True, exist_ok=True)
    Path(step_file.work).mkdir(parents=True, exist_ok=True)
    Path(step_file.cache).mkdir(parents=True, exist_ok=True)

    started = datetime.now(UTC)
    clock = time.monotonic()
    metrics = step.load()(
        StepContext(
            params=call.params,
            inputs={name: Path(item.path) for name, item in step_file.inputs.items()},
            output=output,
            work=Path(step_file.work),
            cache=Path(step_file.cache),
            log=log,
            progress=progress,
            note=note,
        )
    )
    for name, item in step_file.inputs.items():
        if not item.artefact:  # nobody keeps the user from saving a file while it is read
            check_input(name, item)
    files = output_files(output)
    manifest = Manifest(
        call=call,
        files=files,
        metrics=metrics,
        versions=versions(call),
        ran={
            "host": socket.gethostname(),
            "execution": step_file.execution,
            "started": started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - clock, 3),
        },
    )
    seal(output, manifest)
    return manifest


def output_files(output: Path) -> dict[str, FileEntry]:
    """Hash what a step left behind.

    Raises:
        UserError: Nothing was written, or a link, which would break when the artefact is moved.
    """
    paths = list_files(output)
    if not paths:
        raise UserError(f"The step ended and left no file in {output}.")
    for path in paths:
        if (output / path).is_symlink():
            raise UserError(f"The step left a link, {path}; artefacts hold files only.")
    return hash_files(output, paths)


def check_versions(call: StepCall) -> None:
    """Refuse to make an artefact whose identity names other library versions than are installed here."""
    here = installed_versions(tuple(call.libraries))
    wrong = [
        f"{name} {here[name]} (wanted {wanted})" for name, wanted in call.libraries.items() if here[name] != wanted
    ]
    if wrong:
        raise UserError(
            f"This worker's libraries are not those of the orchestrator: {', '.join(wrong)}. "
            "Install the same requirements.lock on both."
        )


def check_input(name: str, item: StepInput) -> None:
    """Verify every byte of an input against the digest the identity was computed from."""
    path = Path(item.path)
    if item.artefact:
        manifest = read_manifest(path)
        verify(path, manifest, content=True)
        digest = manifest.digest
    else:
        digest = digest_of(fingerprint(path, f"Input {name!r}"))
    if digest != item.digest:
        raise UserError(f"Input {name!r} at {path} changed while the step was starting or running. Run it again.")


def versions(call: StepCall) -> dict[str, str]:
    """Versions for the record: Python, platform, this package and the step's libraries."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "phi3-assets": metadata.version("phi3-assets"),
        **call.libraries,
    }


def describe_failure(error: BaseException, step_file: StepFile) -> tuple[str, bool]:
    """What to tell the user, and whether it is theirs to change."""
    if isinstance(error, UserError):
        return str(error), True
    if disk_is_full(error):
        free = shutil.disk_usage(step_file.output).free
        return (
            f"The disk is full: step {step_file.call.step!r} could not write to {step_file.output} "
            f"({free / 2**20:.0f} MiB free). Free some space, or point PHI3_HOME at a larger disk. "
            "Nothing half-written was kept.",
            True,
        )
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} (at {Path(last.filename).name}:{last.lineno})", False


def disk_is_full(error: BaseException | None) -> bool:
    """True when ENOSPC stands anywhere in the chain; safetensors and pyarrow only leave it in their text."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if os.strerror(errno.ENOSPC) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def main(path: str) -> int:
    """Run the step of the file at `path`; the exit code is 0 only if the artefact is sealed."""
    die_with_parent()
    # `nohup phi3 run &` hands ignored signals down; a step must be stoppable nevertheless.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.update(SETTINGS)
    step_file = StepFile.from_json(Path(path).read_text(encoding="utf-8"))
    if step_file.call.step in DATA_STEPS:
        leave_pandas_out()
    if DAGSTER_PIPES_CONTEXT_ENV_VAR not in os.environ:
        return run_by_hand(step_file)
    with open_dagster_pipes() as pipes:
        return run_under_dagster(step_file, pipes)


def run_under_dagster(step_file: StepFile, pipes: PipesContext) -> int:
    """Run with logs, progress and failure reported through Pipes."""
    # Olive's passes run with sys.stdout turned away.
    note = partial(print, file=sys.stdout, flush=True)

    def log(line: str) -> None:
        note(line)
        pipes.log.info(line)

    def progress(**numbers: float) -> None:
        pipes.report_custom_message({"progress": numbers})

    try:
        run_step(step_file, log, progress, note)
    except Exception as error:
        traceback.print_exc()
        message, user_error = describe_failure(error, step_file)
        pipes.report_custom_message({"failed": message, "user_error": user_error})
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
