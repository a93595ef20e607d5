"""Killed at any moment, a step leaves a whole artefact or none, and the next try converges to the same bytes.

The step runs in a fork that counts its writes with an audit hook (every open for writing, rename, mkdir, unlink) and
kills itself with SIGKILL before the n-th. n runs over all of them, so no write is left untried.
"""

import itertools
import os
import shutil
import signal
import sys

from phi3_assets.core.manifest import verify
from phi3_assets.resources.local_store import LocalArtifactStore
from phi3_assets.worker.running import run_step
from phi3_assets.worker.step_file import StepFile, StepInput
from phi3_assets_tests.conftest import raw_dataset_call

WRITES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "shutil.rmtree"}


def make(store, call, files):
    """What LocalExecution does around the worker, in this process."""
    with store.claim(call):
        staged = store.staging_path(call)
        step_file = StepFile(
            call=call,
            inputs={"datasets": StepInput(str(files["datasets"].path), files["datasets"].digest, artefact=None)},
            output=str(staged),
            work=str(store.work_path(call) / "checkpoints"),
            cache=str(store.cache_path),
            execution="local",
        )
        run_step(step_file, log=lambda line: None, progress=lambda **numbers: None)
        return store.publish(call, staged)


def killed_at(number: int, store, call, files) -> bool:
    """Make the artefact in a fork that dies at its n-th write; False when it had fewer."""
    child = os.fork()
    if child == 0:
        writes = 0

        def count(event, arguments):
            nonlocal writes
            writing = event == "open" and arguments[2] is not None and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if writing or event in WRITES:
                writes += 1
                if writes == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(count)
            make(store, call, files)
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def test_kill_at_every_write(home, tmp_path):
    """Each time in a home as it was: what an earlier try left in the caches is not written again, nor killed at."""

    def new_store(name):
        return LocalArtifactStore(home=str(shutil.copytree(home, tmp_path / name)))

    undisturbed = new_store("undisturbed")
    expected = make(undisturbed, *raw_dataset_call(undisturbed))
    for number in itertools.count(1):
        store = new_store(str(number))
        call, files = raw_dataset_call(store)
        if not killed_at(number, store, call, files):
            break
        found = store.find(call.step, call.identity)
        if found is not None:  # killed after the rename: then it must be whole
            verify(store.fetch(found.ref), found, content=True)
        made = make(store, call, files)
        assert made.digest == expected.digest
        verify(store.fetch(made.ref), made, content=True)
        with store.claim(call):  # what the killed one left is cleared by the next who comes
            assert list(store.work_path(call).glob("staged-*")) == []
    assert number > 40, "too few writes were seen: the hook sees nothing"


def test_another_try_after_a_kill_gives_the_same_bytes(store):
    call, files = raw_dataset_call(store)
    assert killed_at(8, store, call, files)
    first = make(store, call, files)
    shutil.rmtree(store.fetch(first.ref))
    assert make(store, call, files).digest == first.digest
