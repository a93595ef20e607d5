"""Steps as processes on this machine, on CUDA or CPU."""

import os
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from dagster import PipesTempFileContextInjector, open_pipes_session
from pydantic import Field, PrivateAttr

from phi3_assets.core import memory
from phi3_assets.core.home import SHORT
from phi3_assets.core.locks import Holder
from phi3_assets.core.manifest import ArtefactRef, Manifest
from phi3_assets.core.step import StepCall
from phi3_assets.models.environment import settings
from phi3_assets.resources.devices import CPU, VISIBLE, hold_devices
from phi3_assets.resources.end_of_log import end_of_log
from phi3_assets.resources.execution import TRANSIENT, Context, Execution, Inputs, UserFiles
from phi3_assets.resources.messages import LiveMessageReader, Messages
from phi3_assets.resources.store import ArtifactStore
from phi3_assets.steps import step_of
from phi3_assets.worker.step_file import StepFile, StepInput

if TYPE_CHECKING:
    from phi3_assets.worker.forkserver import ForkServer
    from phi3_assets.worker.processes import ProcessTree, Start

WORKER = ["-m", "phi3_assets.worker"]
MEMORY_SAMPLE_S = 2.0


class LocalExecution(Execution):
    """Runs each step in a process group of its own, and leaves nothing running."""

    grace_s: float = Field(
        default=10,
        ge=0,
        description="On termination, seconds from SIGINT to SIGTERM, and from there to SIGKILL.",
    )
    observe_every_s: float = Field(default=5, gt=0, description="Least seconds between two progress points in the UI.")

    _fork_server: "ForkServer | None" = PrivateAttr(default=None)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """At the end of the run."""
        if self._fork_server is not None:
            self._fork_server.close()

    def run_step(self, context: Context, call: StepCall, inputs: Inputs, store: ArtifactStore) -> Manifest:
        """See `Execution.run_step`."""
        work = store.work_path(call)
        staged = store.staging_path(call)
        log = work / "worker.log"
        step_file = StepFile(
            call=call,
            inputs={name: _as_step_input(item, store) for name, item in inputs.items()},
            output=str(staged),
            work=str(work / "resume"),
            cache=str(store.cache_path),
            execution="local",
        )
        path = work / "step.json"
        path.write_text(step_file.to_json(), encoding="utf-8")
        try:
            with _devices(context, call, store.home_path) as own:
                self._run_worker(context, call, path, log, own)
            manifest = store.publish(call, staged)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        store.keep_log(call, log)
        shutil.rmtree(work)  # checkpoints are of no use once the artefact stands
        return manifest

    def _run_worker(
        self,
        context: Context,
        call: StepCall,
        step_file: Path,
        log: Path,
        own: Mapping[str, str],
    ) -> None:
        from phi3_assets.worker.processes import ProcessTree, spawn  # and with it psutil, for those who run a step

        messages = Messages(context, step_of(call.step).progress_of or call.step, self.observe_every_s)
        with open_pipes_session(
            context=context,
            context_injector=PipesTempFileContextInjector(),
            message_reader=LiveMessageReader(messages),
        ) as session:
            # Python's -c and -m put the working directory first on sys.path; a user's torch.py must not win.
            env = {**os.environ, **settings(), "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}
            tree = ProcessTree(
                [sys.executable, *WORKER, str(step_file)],
                env={**env, **own, **session.get_bootstrap_env_vars()},
                log=log,
                start=self._start(env, log) if step_of(call.step).imports_torch else spawn,
            )
            context.log.info(f"Step {call.step} {call.identity[:SHORT]} runs in process {tree.pid}, log in {log}.")
            try:
                while (code := tree.wait(MEMORY_SAMPLE_S)) is None:
                    pass
            except BaseException:
                # Also KeyboardInterrupt and SystemExit: whatever ends this process must not leave the tree behind.
                context.log.info(f"Stopping process {tree.pid} and all it started.")
                tree.stop(self.grace_s)
                raise
            tree.close()
        if code != 0:
            raise _failure(call, code, messages, tree, log)

    def _start(self, env: dict[str, str], log: Path) -> "Start":
        """From a server that has torch imported, in this environment."""
        from phi3_assets.worker.forkserver import ForkServer

        server = self._fork_server
        if server is None or server.env != env or not server.alive:
            if server is not None:
                server.close()
            self._fork_server = server = ForkServer(env, log)
        return server.start


@contextmanager
def _devices(context: Context, call: StepCall, home: Path) -> Iterator[dict[str, str]]:
    """Hold what the step runs on, if it wants that to itself; gives what its environment gets for it."""
    if not step_of(call.step).on_device:
        yield {}
        return

    def waiting(who: str) -> None:
        context.log.info(f"{call.step} {call.identity[:SHORT]} waits for the device, which is held by {who}.")

    holder = Holder(context.run.run_id, f"{call.step} {call.identity[:SHORT]}")
    with hold_devices(home, os.environ, call.settings.get("processes", 1), holder, waiting) as names:
        yield {} if names == [CPU] else {VISIBLE: ",".join(names)}


def _as_step_input(item: ArtefactRef | UserFiles, store: ArtifactStore) -> StepInput:
    if isinstance(item, UserFiles):
        return StepInput(path=str(item.path), digest=item.digest, artefact=None)
    return StepInput(path=str(store.fetch(item)), digest=item.digest, artefact=item)


def _failure(call: StepCall, code: int, messages: Messages, tree: "ProcessTree", log: Path) -> dg.Failure:
    """The worker's own reason if it gave one, else what the exit code and the log tell."""
    # Who kills with SIGKILL is the kernel that runs out of memory, for whose sake ever.
    transient = messages.transient or (messages.failed is None and code == -signal.SIGKILL)
    if messages.failed is not None:
        reason = messages.failed
    elif code == -signal.SIGKILL:
        lower = memory.what_to_lower({**call.params, **call.settings})
        reason = (
            f"The worker was killed (SIGKILL), which is what the kernel does when memory runs out: the step held "
            f"{memory.gib(tree.peak_memory_bytes)} of this machine's {memory.gib(memory.total_bytes())}, and "
            f"{memory.gib(memory.available_bytes())} are available now. {lower}"
        )
    elif code < 0:
        reason = f"The worker was ended by {signal.Signals(-code).name}."
    else:
        reason = f"The worker ended with code {code} and gave no reason."
    return dg.Failure(
        description=f"{call.step}: {reason}",
        metadata={
            "log": dg.MetadataValue.path(str(log)),
            **end_of_log(log.read_text(encoding="utf-8", errors="replace")),
            TRANSIENT: dg.MetadataValue.bool(transient),
        },
        allow_retries=transient,
    )
