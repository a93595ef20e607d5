"""The control groups of this process: what a container may use of its machine."""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def groups(controller: str) -> Iterator[tuple[int, Path]]:
    """Folders that may limit this process, from its own group up to the root: version of cgroups, and folder.

    Inside a container the group's own path may not exist; its limit then stands at the root.

    Args:
        controller: memory or cpu.
    """
    try:
        lines = OWN.read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            version, root = 2, ROOT
        elif controller in controllers.split(","):
            version, root = 1, ROOT / controller
        else:
            continue
        group = root / path.lstrip("/")
        yield from ((version, folder) for folder in (group, *group.parents) if folder.is_relative_to(root))
