"""The disk is full, or may only be read."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from phi3_assets.core.manifest import read_manifest
from phi3_assets_tests.faults.findings import GRAPH, STAGES
from phi3_assets_tests.faults.scene import Plan, Scene, end_of

DISK_BYTES = 1 << 29
_HOW = "no right to mount a small disk; run it as root on Linux"
_LEAST_BYTES = 1 << 15
_READ_ONLY = "cannot be read or written (Read-only file system)"


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A disk of its own at this folder; False: it cannot be mounted here."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def full(plan: Plan) -> None:
    """At each stage the disk has room for half of what the stage makes; when there is room again, it is made."""
    name = "disk full"
    disk = plan.folder / "disks" / "full"
    with small_disk(disk) as mounted:
        scene = Scene(plan, name, disk / "home")
        if not mounted:
            scene.answer(GRAPH, "the fault", skipped=_HOW)
            return
        for stage in STAGES:
            made = read_manifest(scene.standing(stage, plan.reference))
            filler = disk / "filler"
            _fill(filler, max(_LEAST_BYTES, made.bytes // 2))
            code, said = scene.run("--to", stage)
            told = code == 1 and re.search("disk is full|No space left", said) and "Traceback" not in said
            scene.answer(stage, "says that the disk is full", "" if told else f"{code}, {end_of(said)}")
            scene.nothing_is_left(stage)
            filler.unlink()
            code, said = scene.run("--to", stage)
            scene.ends_well(stage, code, said)
        scene.converged()


def _fill(filler: Path, leave_bytes: int) -> None:
    free = shutil.disk_usage(filler.parent).free
    with filler.open("wb") as file:
        file.truncate(0)
        left = free - leave_bytes
        while left > 0:
            left -= file.write(b"\0" * min(left, 1 << 20))


def read_only(plan: Plan) -> None:
    """A home that may only be read: the run says so and changes nothing; when it may be written, all stands."""
    name = "home read-only"
    disk = plan.folder / "disks" / "read-only"
    with small_disk(disk) as mounted:
        scene = Scene(plan, name, disk / "home")
        if not mounted:
            scene.answer(GRAPH, "the fault", skipped=_HOW)
            return
        scene.all_is_made()
        for flag in ("ro", "rw"):
            subprocess.run(["mount", "-o", f"remount,{flag}", str(disk)], check=True)
            code, said = scene.run()
            if flag == "ro":
                told = code == 1 and _READ_ONLY in said and "Traceback" not in said
                scene.answer(GRAPH, "says that it may only be read", "" if told else f"{code}, {end_of(said)}")
            scene.nothing_is_left(GRAPH)
        scene.ends_well(GRAPH, code, said)
        scene.made_once(said, made=set())
        scene.converged()
