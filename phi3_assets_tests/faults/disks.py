"""The disk is full, or may only be read."""

import re
import shutil
import subprocess
from pathlib import Path

from phi3_assets.core.manifest import read_manifest
from phi3_assets_tests.faults.findings import GRAPH, STAGES
from phi3_assets_tests.faults.scene import Plan, Scene, end_of
from phi3_assets_tests.harms import small_disk

DISK_BYTES = 1 << 29
_HOW = "no right to mount a small disk; run it as root on Linux"
PAGE_BYTES = 4096
_READ_ONLY = "cannot be read or written (Read-only file system)"


def full(plan: Plan) -> None:
    """At each stage the disk has room for half of what the stage makes; when there is room again, it is made."""
    name = "disk full"
    disk = plan.folder / "disks" / "full"
    with small_disk(disk, DISK_BYTES) as mounted:
        scene = Scene(plan, name, disk / "home")
        if not mounted:
            scene.answer(GRAPH, "the fault", skipped=_HOW)
            return
        for stage in STAGES:
            made = read_manifest(scene.standing(stage, plan.reference))
            filler = disk / "filler"
            _fill(filler, sum(-(-entry.bytes // PAGE_BYTES) for entry in made.files.values()) * PAGE_BYTES // 2)
            code, said = scene.run("--to", stage)
            told = code == 1 and re.search("disk is full|No space left", said) and "Traceback" not in said
            scene.answer(stage, "says that the disk is full", "" if told else f"{code}, {end_of(said)}")
            scene.nothing_is_left(stage)
            filler.unlink()
            code, said = scene.run("--to", stage)
            scene.ends_well(stage, code, said)
        scene.converged()


def _fill(filler: Path, leave_bytes: int) -> None:
    left = shutil.disk_usage(filler.parent).free - leave_bytes
    with filler.open("wb") as file:
        while left > 0:
            left -= file.write(b"\0" * min(left, 1 << 20))


def read_only(plan: Plan) -> None:
    """A home that may only be read: the run says so and changes nothing; when it may be written, all stands."""
    name = "home read-only"
    disk = plan.folder / "disks" / "read-only"
    with small_disk(disk, DISK_BYTES) as mounted:
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
