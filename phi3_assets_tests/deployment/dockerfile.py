"""A Dockerfile without a Docker engine: its instructions are carried out as written, each stage in a view of its own.

A stage is a folder of changes over the stage it is from, and at the bottom over this machine's own root, which stands
for the base image: Debian with Python 3.11, as `python:3.11-slim-bookworm` is. Takes root, overlayfs and namespaces.
"""

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import psutil

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# As a Docker client hands its proxy on: how this machine reaches a package index.
BUILD = {
    name: value for name, value in os.environ.items() if name.startswith("PIP_") or name.lower().endswith("_proxy")
}


@dataclass
class Said:
    """A stage as the file says it: what it is from, and its instructions, each a name and a text."""

    source: str
    instructions: list[tuple[str, str]] = field(default_factory=list)


def parse(path: Path, arguments: dict[str, str] | None = None) -> dict[str, Said]:
    """The stages of a Dockerfile by name; `arguments` are those of `--build-arg`."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(encoding="utf-8"), flags=re.M)
    globals_: dict[str, str] = {}
    stages: dict[str, Said] = {}
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        name, _, rest = line.strip().partition(" ")
        if name == "FROM":
            source, _, stage = rest.partition(" AS ")
            stages[stage] = Said(_substitute(source, globals_))
        elif name and stages:
            list(stages.values())[-1].instructions.append((name, rest.strip()))
        elif name == "ARG":
            key, _, value = rest.partition("=")
            globals_[key] = (arguments or {}).get(key, value)
    return stages


@dataclass
class Image:
    """What a stage came to: its changes, newest first, and what a process in it starts with."""

    layers: list[Path]
    env: dict[str, str]
    workdir: str = "/"
    user: str = "0"
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)


class Builder:
    """Builds targets of a Dockerfile below a folder, which must be on a disk that takes overlays."""

    def __init__(self, dockerfile: Path, folder: Path, arguments: dict[str, str]) -> None:
        """Prepare what stands for the base image: this machine's root, with its Python where an image has it."""
        self._context = dockerfile.parent
        self._folder = folder
        self._arguments = arguments
        self._stages = parse(dockerfile, arguments)
        self._images: dict[str, Image] = {}
        base = self._layer("base-image")
        bin_ = base / "usr" / "local" / "bin"
        bin_.mkdir(parents=True)
        for name in ("python", "python3"):
            (bin_ / name).symlink_to(Path(sys.base_prefix, "bin", "python3.11"))
        self._base = Image([base], {"PATH": PATH})
        # Everybody may run the Python of an image; this machine's may be in root's own folder.
        closed = [path for path in Path(sys.base_prefix).parents if not path.stat().st_mode & 0o001]
        if closed:
            self._run(self._base, f"chmod o+x {shlex.join(map(str, closed))}")

    def build(self, name: str) -> Image:
        """Carry out a stage, and before it what it needs."""
        if name not in self._stages:
            return self._base
        if name in self._images:
            return self._images[name]
        said = self._stages[name]
        below = self.build(said.source)
        image = Image([self._layer(name), *below.layers], dict(below.env), below.workdir, below.user)
        image.command, image.health = below.command, below.health
        build_arguments: dict[str, str] = {}
        for instruction, text in said.instructions:
            known = {**image.env, **build_arguments}
            match instruction:
                case "ARG":
                    key, _, value = text.partition("=")
                    build_arguments[key] = self._arguments.get(key, value)
                case "ENV":
                    for pair in shlex.split(text):
                        key, _, value = pair.partition("=")
                        image.env[key] = _substitute(value, known)
                case "WORKDIR":
                    image.workdir = text
                    (image.layers[0] / text.lstrip("/")).mkdir(parents=True, exist_ok=True)
                case "USER":
                    image.user = text
                case "RUN":
                    self._run(image, text, build_arguments)
                case "COPY":
                    self._copy(image, shlex.split(text))
                case "CMD":
                    image.command = json.loads(text)
                case "HEALTHCHECK":
                    image.health = json.loads(text.partition(" CMD ")[2])
                case "EXPOSE":
                    assert text.isdigit()
                case _:
                    raise AssertionError(f"{instruction} is not known here")
        self._images[name] = image
        return image

    def _layer(self, name: str) -> Path:
        layer = self._folder / f"{len(list(self._folder.iterdir())):02}-{name}" / "changes"
        layer.mkdir(parents=True)
        (layer.parent / "work").mkdir()
        (layer.parent / "root").mkdir()
        return layer

    def _run(self, image: Image, line: str, more: dict[str, str] | None = None) -> None:
        command = command_in(image, ["sh", "-c", line], {**BUILD, **(more or {})})
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900)
        assert done.returncode == 0, f"RUN {line}\n{done.stdout[-4000:]}"

    def _copy(self, image: Image, words: list[str]) -> None:
        stage = words.pop(0).partition("=")[2] if words[0].startswith("--from=") else ""
        *sources, target = words
        into = image.layers[0] / os.path.join(image.workdir, target).strip("/")
        if stage:
            # Through the other stage's own view: what it has of a folder may lie in several layers.
            command = ["cp", "--archive", f"{sources[0]}/.", "/mnt"]
            subprocess.run(command_in(self.build(stage), command, mounts={"/mnt": _made(into)}), check=True)
            return
        for source in sources:
            path = self._context / source
            if path.is_dir():
                shutil.copytree(path, into, dirs_exist_ok=True, ignore=self._ignored)
            else:
                shutil.copy(path, _made(into) / path.name)

    def _ignored(self, folder: str, names: list[str]) -> set[str]:
        patterns = (self._context / ".dockerignore").read_text().split()
        at = Path(folder).relative_to(self._context)
        return {
            name
            for name in names
            for pattern in patterns
            if fnmatch.fnmatch(name if pattern.startswith("**/") else str(at / name), pattern.removeprefix("**/"))
        }


def command_in(
    image: Image,
    command: list[str],
    env: dict[str, str] | None = None,
    mounts: dict[str, Path] | None = None,
    namespace: str = "",
) -> list[str]:
    """The command that runs `command` in an image: with its root, environment, folder and user, and no others.

    Args:
        image: Its newest layer takes what the command changes.
        command: Program and arguments.
        env: Variables over the image's own.
        mounts: Folders of this machine by their place in the image; a place that ends in ":ro" cannot be written.
        namespace: Network, as `ip netns` names it; "": this machine's.
    """
    top = image.layers[0].parent
    lower = ":".join([*map(str, image.layers[1:]), "/"])
    options = f"lowerdir={lower},upperdir={image.layers[0]},workdir={top / 'work'}"
    root = top / "root"
    steps = [f"mount -t overlay overlay -o {shlex.quote(options)} {root}"]
    steps += [f"mount --rbind /{name} {root}/{name}" for name in ("sys", "dev")]
    steps += [f"mount -t proc proc {root}/proc", f"mount -t tmpfs -o mode=1777 tmpfs {root}/tmp"]
    for place, folder in (mounts or {}).items():
        target = f"{root}{place.removesuffix(':ro')}"
        steps.append(f"mkdir -p {target} && mount --bind {folder} {target}")
        if place.endswith(":ro"):
            steps.append(f"mount -o remount,bind,ro {target}")
    variables = {"HOME": "/root" if image.user == "0" else "/home/phi3", **image.env, **(env or {})}
    inside = ["setpriv", f"--reuid={image.user}", f"--regid={image.user}", "--clear-groups", *command]
    there = shlex.join(["env", "-i", *(f"{key}={value}" for key, value in variables.items()), *inside])
    steps.append(f"exec chroot {root} sh -c {shlex.quote(f'cd {image.workdir} && exec {there}')}")
    outside = ["nsenter", f"--net=/run/netns/{namespace}"] if namespace else []
    return [*outside, "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", "\n".join(steps)]


def command_beside(running: int, image: Image, command: list[str]) -> list[str]:
    """The command that runs `command` where a process of an image runs already, as `docker exec` does.

    Args:
        running: Number of the process that `command_in` was started as.
        image: The image.
        command: Program and arguments.
    """
    (first,) = psutil.Process(running).children()
    env = [f"{key}={value}" for key, value in first.environ().items()]
    user = ["setpriv", f"--reuid={image.user}", f"--regid={image.user}", "--clear-groups"]
    there = ["--mount", "--pid", "--net", "--root", "--wd"]
    return ["nsenter", f"--target={first.pid}", *there, "env", "-i", *env, *user, *command]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _substitute(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda found: values[found[1]], text)
