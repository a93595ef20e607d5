"""A manifest proves that an artefact is what it was; every way of changing one must be seen."""

import json
import os

import pytest

from phi3_assets.core.errors import DamagedArtefact, UserError
from phi3_assets.core.files import hash_files
from phi3_assets.core.manifest import Manifest, digest_of, fingerprint, read_manifest, seal, verify
from phi3_assets.core.step import StepCall

CALL = StepCall(step="raw_dataset", code_version="1", params={"a": 1}, inputs={"x": "00"}, libraries={"pandas": "3"})


@pytest.fixture
def artefact(tmp_path):
    tmp_path = tmp_path / "artefact"
    tmp_path.mkdir()
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "sub" / "b.bin").write_bytes(b"\0" * 1000)
    seal(tmp_path, Manifest(call=CALL, files=hash_files(tmp_path), metrics={"rows": 1}))
    return tmp_path


def test_round_trip(artefact):
    manifest = read_manifest(artefact)
    verify(artefact, manifest, content=True)
    assert manifest.call == CALL
    assert manifest.bytes == 1001
    assert manifest.ref.identity == CALL.identity
    assert str(artefact) not in (artefact / "manifest.json").read_text()


def test_digest_is_of_content_alone(artefact, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "sub").mkdir()
    (other / "sub" / "b.bin").write_bytes(b"\0" * 1000)
    (other / "a.txt").write_text("a")
    assert digest_of(hash_files(other)) == read_manifest(artefact).digest


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "a.txt").write_text("b"), "a.txt was changed"),
        (lambda d: (d / "a.txt").write_text("aa"), "a.txt has 2 bytes, its manifest says 1"),
        (lambda d: (d / "a.txt").unlink(), "a.txt is missing"),
        (lambda d: (d / "new.txt").write_text(""), "new.txt is not in the manifest"),
        (lambda d: (d / ".hidden").write_text(""), ".hidden is not in the manifest"),
        (lambda d: (d / "sub" / "manifest.json").write_text("{}"), "sub/manifest.json is not in the manifest"),
        (lambda d: (d / "sub2").symlink_to("sub"), "sub2 is not in the manifest"),
        (
            lambda d: (d / "a.txt").rename(d / "../a") and (d / "a.txt").symlink_to("../a"),
            "a.txt is a link",
        ),
        (lambda d: (d / "a.txt").unlink() or os.mkfifo(d / "a.txt"), r"a.txt is a pipe \(FIFO\)"),
    ],
)
def test_every_change_is_seen(artefact, damage, message):
    damage(artefact)
    with pytest.raises(DamagedArtefact, match=message):
        verify(artefact, read_manifest(artefact), content=True)


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "sub/desktop.ini"])
def test_a_desktops_own_files_do_not_void_an_artefact(artefact, name):
    """Looking at an artefact in Finder left .DS_Store there, and the model had to be trained again."""
    (artefact / name).write_bytes(b"\0")
    verify(artefact, read_manifest(artefact), content=True)
    (artefact / "sub" / "other.ini").write_bytes(b"\0")
    with pytest.raises(DamagedArtefact, match=r"other\.ini is not in the manifest"):
        verify(artefact, read_manifest(artefact), content=False)


@pytest.mark.parametrize("text", ["[]", '{"format": 1, "files": "x"}', "[" * 200_000, '{"format": 1, "call": 3}'])
def test_odd_json_is_no_manifest(artefact, text):
    """A list, a string for the files, or deep nesting ended in a traceback."""
    (artefact / "manifest.json").write_text(text)
    with pytest.raises(DamagedArtefact, match="is not a manifest"):
        read_manifest(artefact)


@pytest.mark.parametrize("key", ["identity", "digest"])
def test_edited_manifest_is_seen(artefact, key):
    path = artefact / "manifest.json"
    value = json.loads(path.read_text())
    value[key] = "0" * 64
    path.write_text(json.dumps(value))
    with pytest.raises(DamagedArtefact, match="was edited"):
        read_manifest(artefact)


def test_edited_parameters_are_seen(artefact):
    path = artefact / "manifest.json"
    path.write_text(path.read_text().replace('"a": 1', '"a": 2'))
    with pytest.raises(DamagedArtefact, match="was edited"):
        read_manifest(artefact)


def test_truncated_manifest_is_seen(artefact):
    path = artefact / "manifest.json"
    path.write_text(path.read_text()[:50])
    with pytest.raises(DamagedArtefact, match="is not a manifest"):
        read_manifest(artefact)


@pytest.mark.parametrize(
    "change",
    [
        {"step": "base_model"},
        {"code_version": "2"},
        {"params": {"a": 2}},
        {"inputs": {"x": "01"}},
        {"libraries": {"pandas": "4"}},
    ],
)
def test_identity_depends_on_everything_a_step_is_made_of(change):
    assert StepCall(**{**CALL.to_dict(), **change}).identity != CALL.identity


def test_identity_does_not_depend_on_order():
    assert StepCall(**{**CALL.to_dict(), "params": {"b": 1, "a": 1}}).identity == (
        StepCall(**{**CALL.to_dict(), "params": {"a": 1, "b": 1}}).identity
    )


def test_user_folder_missing_empty_or_hidden(tmp_path):
    with pytest.raises(UserError, match="does not exist.*phi3 init"):
        fingerprint(tmp_path / "none", "Dataset folder")
    (tmp_path / ".half-written.csv").write_text("x")
    with pytest.raises(UserError, match="is empty. Put at least one file there"):
        fingerprint(tmp_path, "Dataset folder")


def test_a_users_file_named_manifest_json_counts(tmp_path):
    """It was read as data and was in no identity: the rows in it could change, and nothing was made anew."""
    (tmp_path / "a.csv").write_text("x")
    before = digest_of(fingerprint(tmp_path, "Dataset folder"))
    (tmp_path / "manifest.json").write_text('[{"Question": "what?"}]')
    with_it = digest_of(fingerprint(tmp_path, "Dataset folder"))
    (tmp_path / "manifest.json").write_text('[{"Question": "when?"}]')
    assert len({before, with_it, digest_of(fingerprint(tmp_path, "Dataset folder"))}) == 3
