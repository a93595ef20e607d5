"""Copies of checkpoints outlive the machine at any moment that it dies, and nothing but a whole one is taken up."""

import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from phi3_assets.core.errors import TransientError
from phi3_assets.training.checkpoints import FOLDER, drop_damaged
from phi3_assets.worker import checkpoint_copies, mirror
from phi3_assets.worker.checkpoint_copies import MARKER, copies_in
from phi3_assets.worker.mirror import Mirror
from phi3_assets_tests.harms import HARMS, cut, flip
from phi3_assets_tests.worker.mirroring import BYTES, best_of, weights, write_checkpoint


class Machine:
    """A work directory that is new, and the copies that are not."""

    def __init__(self, root: Path, name: str) -> None:
        self.work, self.copies, self.log = root / name, root / "copies", []
        self.work.mkdir()
        self.mirror = Mirror(self.work, self.copies, self.log.append)

    def steps(self) -> list[int]:
        return sorted(int(path.name.partition("-")[2]) for path in (self.work / FOLDER).glob("*"))


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def first(tmp_path: Path) -> Machine:
    return Machine(tmp_path, "first")


@pytest.fixture
def second(tmp_path: Path) -> Machine:
    return Machine(tmp_path, "second")


def test_killed_at_any_moment_the_next_machine_goes_on(tmp_path: Path) -> None:
    """SIGKILL after moments of a fixed series; each machine's disk is lost, and half copies are left behind."""
    moments = random.Random(11)
    seen = half_copies = 0
    for number in range(12):
        machine = Machine(tmp_path, f"machine{number}")
        command = [sys.executable, "-m", "phi3_assets_tests.worker.mirroring", machine.work, machine.copies]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        while not (line := process.stdout.readline()).strip().isdigit():
            assert line, "it ended"
        time.sleep(moments.random() * 0.7)
        # Those that it removes while they are listed are not among them.
        marked = [copy.step for copy in copies_in(machine.copies)]
        process.kill()
        process.communicate()
        half_copies += sum(not (path / MARKER).exists() for path in machine.copies.glob("*"))

        following = Machine(tmp_path, f"following{number}")
        taken = following.mirror.restore() or 0
        assert taken >= max([seen, *marked])
        assert not any("not taken" in line for line in following.log)
        seen = taken
        if taken:
            assert drop_damaged(following.work / FOLDER, lambda line: None) == taken
            assert following.steps() == sorted({taken, best_of(taken)})
            for step in following.steps():
                path = following.work / FOLDER / f"checkpoint-{step}" / "adapter_model.safetensors"
                assert path.read_bytes() == weights(step)
        shutil.rmtree(machine.work)
        shutil.rmtree(following.work)
    assert seen > 12
    assert half_copies  # else the moments were not any


def test_the_newest_and_the_best_are_kept(first: Machine, second: Machine) -> None:
    for step, best in ((3, 3), (6, 3), (7, 3)):
        write_checkpoint(first.work, step, best)
        first.mirror.finish()
    assert sorted(copy.step for copy in copies_in(first.copies)) == [3, 7]
    assert len(list(first.copies.iterdir())) == 2
    assert second.mirror.restore() == 7
    assert second.steps() == [3, 7]
    assert second.log == [f"Took the checkpoint of step 7 from {first.copies}"]
    # It knows what it took, and does not copy it again.
    before = {path: path.stat().st_mtime_ns for path in files_below(first.copies)}
    second.mirror.finish()
    assert {path: path.stat().st_mtime_ns for path in files_below(first.copies)} == before
    write_checkpoint(second.work, 9, 9)
    second.mirror.finish()
    assert [copy.step for copy in copies_in(first.copies)] == [9]


@pytest.mark.parametrize("harm", HARMS)
def test_any_damage_is_found_and_the_one_before_taken(harm: Callable[[Path], None], first: Machine, tmp_path: Path):
    write_checkpoint(first.work, 3, None)
    first.mirror.finish()
    older = shutil.copytree(first.copies, tmp_path / "older")
    write_checkpoint(first.work, 7, None)
    first.mirror.finish()
    for path in older.iterdir():
        shutil.copytree(path, first.copies / path.name)
    whole = first.copies.rename(tmp_path / "whole")
    newest = max(copies_in(whole), key=lambda copy: copy.step).folder
    names = [path.relative_to(whole) for path in files_below(newest)]
    assert len(names) == 4
    for number, name in enumerate(names):
        shutil.copytree(whole, first.copies)
        harm(first.copies / name)
        machine = Machine(tmp_path, f"machine{number}")
        assert machine.mirror.restore() == 3
        assert machine.steps() == [3]
        # Trained again, the same bytes come out; the damaged copy is not taken for theirs.
        write_checkpoint(machine.work, 7, None)
        machine.mirror.finish()
        assert Machine(tmp_path, f"next{number}").mirror.restore() == 7
        shutil.rmtree(first.copies)


def test_a_copy_needs_that_of_the_best(first: Machine, second: Machine) -> None:
    write_checkpoint(first.work, 3, 3)
    write_checkpoint(first.work, 7, 3)
    first.mirror.finish()
    (best,) = (copy for copy in copies_in(first.copies) if copy.step == 3)
    cut(best.folder / "adapter_model.safetensors")
    assert second.mirror.restore() is None
    assert second.steps() == []
    shutil.rmtree(best.folder)
    assert second.mirror.restore() is None
    assert second.log == [
        "The copy of the checkpoint of step 7 is not taken: adapter_model.safetensors is cut off or was changed",
        "The copy of the checkpoint of step 3 is not taken: adapter_model.safetensors is cut off or was changed",
        "The copy of the checkpoint of step 7 is not taken: the copy of the best one so far is missing",
    ]


def test_what_is_newer_here_stays(first: Machine) -> None:
    write_checkpoint(first.work, 7, None)
    first.mirror.finish()
    write_checkpoint(first.work, 9, None)
    again = Mirror(first.work, first.copies, first.log.append)
    assert again.restore() is None
    assert 9 in first.steps()
    cut(first.work / FOLDER / "checkpoint-9" / "adapter_model.safetensors")
    assert again.restore() == 7
    assert first.steps() == [7]


def test_no_copies_yet(first: Machine) -> None:
    assert first.mirror.restore() is None
    first.copies.mkdir()
    assert first.mirror.restore() is None
    with first.mirror:
        first.mirror.finish()
    assert first.log == []


def test_copies_that_cannot_be_listed_are_worth_another_try(first: Machine) -> None:
    """A mount that was not there yet once looked like a training that had never begun."""
    first.copies.symlink_to(first.copies)
    with pytest.raises(TransientError, match="checkpoints of an earlier attempt"):
        first.mirror.restore()


def test_a_checkpoint_that_is_removed_meanwhile_is_copied_to_the_end(first: Machine, second: Machine, monkeypatch):
    """The trainer keeps two; on a slow datastore each copy lost its source before it was whole."""
    written = checkpoint_copies._write
    write_checkpoint(first.work, 3, None)

    def slow(*args):
        shutil.rmtree(first.work / FOLDER / "checkpoint-3", ignore_errors=True)
        return written(*args)

    monkeypatch.setattr(checkpoint_copies, "_write", slow)
    first.mirror.finish()
    monkeypatch.undo()
    assert second.mirror.restore() == 3


def test_a_damaged_checkpoint_is_not_copied(first: Machine) -> None:
    path = write_checkpoint(first.work, 3, None)
    flip(path / "adapter_model.safetensors")
    first.mirror.finish()
    (line,) = first.log
    assert line.startswith("Warning: checkpoints cannot be copied")
    assert "(checkpoint-3: adapter_model.safetensors was changed)" in line
    assert list(first.copies.iterdir()) == []


@pytest.fixture
def small_disk(first: Machine) -> Iterator[Path]:
    """The copies stand on a disk of their own, with room for two checkpoints and a half."""
    first.copies.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={BYTES * 5 // 2 // 1024}k", "tmpfs", str(first.copies)]
    if (mounted := subprocess.run(command, capture_output=True)).returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.decode().strip()}")
    yield first.copies
    subprocess.run(["umount", str(first.copies)], check=True)


def test_a_full_datastore_ends_nothing_and_is_told_once(first: Machine, small_disk: Path, monkeypatch) -> None:
    monkeypatch.setattr(mirror, "POLL_S", 0.01)
    monkeypatch.setattr(mirror, "RETRY_S", 0.01)
    write_checkpoint(first.work, 3, None)
    with first.mirror:
        wait_until(lambda: copies_in(small_disk))
        (small_disk / "of somebody else.bin").write_bytes(bytes(BYTES))
        write_checkpoint(first.work, 4, None)
        wait_until(lambda: first.log)
        first.mirror.finish()
        assert [copy.step for copy in copies_in(small_disk)] == [3]
        assert shutil.disk_usage(small_disk).free > BYTES // 4  # nothing half-written takes the room that is missing
        (small_disk / "of somebody else.bin").unlink()
        wait_until(lambda: len(first.log) == 2)
    assert first.log == [
        f"Warning: checkpoints cannot be copied to {small_disk} ([Errno 28] No space left on device). Training goes "
        "on, and it is tried again; if this machine is lost meanwhile, the next one begins from step 3.",
        f"Checkpoints are copied to {small_disk} again",
    ]
    assert [copy.step for copy in copies_in(small_disk)] == [4]


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_error_of_the_step_waits_for_its_newest_copy(first: Machine) -> None:

    def step() -> None:
        with first.mirror:
            write_checkpoint(first.work, 5, None)
            raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        step()
    assert [copy.step for copy in copies_in(first.copies)] == [5]
    assert not any(thread.name == "mirror" for thread in threading.enumerate())
