"""Running a step in this process: verify what it opens, run its function, write the manifest last."""

import os
import platform
import shutil
import socket
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from phi3_assets.core.disk import is_out_of_space
from phi3_assets.core.errors import TransientError, UserError
from phi3_assets.core.files import FileEntry, hash_files, what_it_is
from phi3_assets.core.machine import devices
from phi3_assets.core.manifest import Manifest, artefact_files, digest_of, fingerprint, read_manifest, seal, verify
from phi3_assets.core.step import (
    Interruption,
    NoInterruption,
    StepCall,
    StepContext,
    installed_version,
    installed_versions,
)
from phi3_assets.steps import step_of
from phi3_assets.worker.step_file import StepFile, StepInput


def run_step(
    step_file: StepFile,
    log: Callable[[str], None],
    progress: Callable[..., None],
    note: Callable[[str], None] = print,
    interruption: Interruption | None = None,
) -> Manifest:
    """Verify the inputs, run the step's function and seal its output.

    Args:
        step_file: The step, and where all stands.
        log: Shows a line to the user.
        progress: Takes numbers while it runs.
        note: Writes a line to the step's own log.
        interruption: Says when the machine is about to be taken away; None: it never is.

    Raises:
        UserError: Versions differ from those of the identity, an input is damaged or changed, or the step says so.
    """
    call = step_file.call
    ctx = _context(step_file, log, progress, note, interruption)
    output = ctx.output
    started = datetime.now(UTC)
    clock = time.monotonic()
    metrics = step_of(call.step).load()(ctx)
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
            **({"job": job} if (job := os.environ.get("AZUREML_RUN_ID")) else {}),
            **devices(),
            "started": started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - clock, 3),
        },
        made_from={name: item.artefact for name, item in step_file.inputs.items() if item.artefact},
    )
    seal(output, manifest)
    return manifest


def help_with_step(
    step_file: StepFile, note: Callable[[str], None] = print, interruption: Interruption | None = None
) -> None:
    """Run the step's function in one of several processes that compute it together, but not the first.

    Its output and work directories are its own, and nothing is sealed: the first process leaves the artefact. What it
    would tell the user goes to its own log alone.

    Args:
        step_file: As the first one's but for the directories.
        note: Writes a line to this process's log.
        interruption: Says when this process's machine is about to be taken away; None: it never is.

    Raises:
        UserError: As for `run_step`.
    """
    step_of(step_file.call.step).load()(_context(step_file, note, lambda **numbers: None, note, interruption))


def _context(
    step_file: StepFile,
    log: Callable[[str], None],
    progress: Callable[..., None],
    note: Callable[[str], None],
    interruption: Interruption | None,
) -> StepContext:
    """Verify what the step reads, and make the directories that it writes to."""
    call = step_file.call
    check_versions(call)
    for name, item in step_file.inputs.items():
        check_input(name, item)
    ctx = StepContext(
        params=call.params,
        inputs={name: Path(item.path) for name, item in step_file.inputs.items()},
        output=Path(step_file.output),
        work=Path(step_file.work),
        cache=Path(step_file.cache),
        log=log,
        progress=progress,
        note=note,
        settings=call.settings,
        interruption=interruption or NoInterruption(),
    )
    for directory in (ctx.output, ctx.work, ctx.cache):
        directory.mkdir(parents=True, exist_ok=True)
    return ctx


def output_files(output: Path) -> dict[str, FileEntry]:
    """Hash what a step left behind.

    Raises:
        UserError: Nothing was written, or what is no plain file: a link would break when the artefact is moved.
    """
    paths = artefact_files(output)
    if not paths:
        raise UserError(f"The step ended and left no file in {output}.")
    for path in paths:
        if kind := what_it_is(output / path):
            raise UserError(f"The step left {kind}, {path}; artefacts hold files only.")
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
        try:
            manifest = read_manifest(path)
            verify(path, manifest, content=True)
        except FileNotFoundError:
            raise UserError(f"Input {name!r} is gone from {path}; was it removed meanwhile? Run it again.") from None
        digest = manifest.digest
    else:
        digest = digest_of(fingerprint(path, f"Input {name!r}", name))
    if digest != item.digest:
        raise UserError(f"Input {name!r} at {path} changed while the step was starting or running. Run it again.")


def versions(call: StepCall) -> dict[str, str]:
    """Versions for the record: Python, platform, this package and the step's libraries with their build tags."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "phi3-assets": metadata.version("phi3-assets"),
        **{name: installed_version(name) for name in sorted(call.libraries)},
    }


def describe_failure(error: BaseException, step_file: StepFile) -> tuple[str, bool]:
    """What to tell the user, and whether it is theirs to change."""
    if isinstance(error, UserError):
        return str(error), True
    if is_out_of_space(error):
        free = shutil.disk_usage(step_file.output).free
        return (
            f"The disk is full: step {step_file.call.step!r} could not write to {step_file.output} "
            f"({free / 2**20:.0f} MiB free). Free some space, or point PHI3_HOME at a larger disk. "
            "Nothing half-written was kept.",
            True,
        )
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} (at {Path(last.filename).name}:{last.lineno})", False


def is_transient(error: BaseException | None) -> bool:
    """True when trying again can help with nothing changed: a network that fails, memory that somebody else held."""
    while error is not None and not isinstance(error, UserError):
        if isinstance(error, (TransientError, ConnectionError, TimeoutError, MemoryError)):
            return True
        if type(error).__name__ == "OutOfMemoryError":  # torch's, which not every worker imports
            return True
        error = error.__cause__ or error.__context__
    return False
