"""Directories to and from real blobs, through every fault that a network has."""

import os
import subprocess
import sys
import time

import pytest

from phi3_assets.azure.blobs import list_folder, remove_folder
from phi3_assets.azure.clients import Clients
from phi3_assets.azure.settings import load_settings
from phi3_assets.azure.transfer import PIECE_BYTES, download_directory, upload_directory
from phi3_assets.core.errors import DamagedArtefact
from phi3_assets.core.files import FileEntry, hash_files

pytestmark = pytest.mark.azure

LARGE = "large.bin"


@pytest.fixture
def container(azure, monkeypatch):
    azure.apply(monkeypatch)
    return Clients(load_settings()).container


@pytest.fixture
def directory(tmp_path):
    """One file of three pieces, small ones, an empty one, and names that an address must escape."""
    directory = tmp_path / "source"
    (directory / "sub folder" / "deeper").mkdir(parents=True)
    (directory / LARGE).write_bytes(os.urandom(2 * PIECE_BYTES + 12_345))
    (directory / "empty").write_bytes(b"")
    (directory / "sub folder" / "ü%41?#&+.txt").write_bytes(b"small")
    (directory / "sub folder" / "deeper" / "exactly").write_bytes(os.urandom(PIECE_BYTES))
    return directory


@pytest.fixture
def files(directory):
    return hash_files(directory)


def test_what_comes_back_is_what_was_sent(container, directory, files, tmp_path):
    upload_directory(container, "a/b", directory, files)
    download_directory(container, "a/b", tmp_path / "back", files)
    assert hash_files(tmp_path / "back") == files
    listed = list_folder(container, "a/b")
    assert {path: FileEntry(blob.bytes, blob.sha256) for path, blob in listed.items()} == files


def test_a_folder_is_not_another_that_begins_alike(container, directory, files):
    upload_directory(container, "a/b", directory, files)
    upload_directory(container, "a/bc", directory, {"empty": files["empty"]})
    assert list_folder(container, "a/b").keys() == files.keys()
    remove_folder(container, "a/b")
    assert list_folder(container, "a/b") == {}
    assert list_folder(container, "a/bc").keys() == {"empty"}


def test_what_is_there_is_not_sent_again(container, directory, files, azure):
    upload_directory(container, "a", directory, files)
    azure.clear()
    upload_directory(container, "a", directory, files)
    assert azure.traffic("PUT", "blob") == []


def test_another_blob_of_the_same_size_is_replaced(container, directory, files, tmp_path):
    container.upload_blob("a/sub folder/ü%41?#&+.txt", b"other")
    upload_directory(container, "a", directory, files)
    download_directory(container, "a", tmp_path / "back", files)
    assert hash_files(tmp_path / "back") == files


@pytest.mark.parametrize(
    "fault", [{"status": 503, "times": 2}, {"kind": "reset", "times": 2}, {"kind": "lost"}, {"status": 401}]
)
def test_an_upload_survives(container, directory, files, azure, fault, tmp_path):
    azure.fault(method="PUT", host="blob", path=LARGE, **fault)
    azure.fault(method="PUT", host="blob", path="empty", **fault)
    upload_directory(container, "a", directory, files)
    assert all(rule["used"] == fault.get("times", 1) for rule in azure.faults())
    download_directory(container, "a", tmp_path / "back", files)
    assert hash_files(tmp_path / "back") == files


@pytest.mark.parametrize("fault", [{"kind": "lost"}, {"status": 503}, {"kind": "reset"}])
def test_the_end_of_an_upload_survives(container, directory, files, azure, fault, tmp_path):
    azure.fault(method="PUT", host="blob", path=LARGE, query="comp=blocklist", **fault)
    upload_directory(container, "a", directory, files)
    assert [rule["used"] for rule in azure.faults()] == [1]
    download_directory(container, "a", tmp_path / "back", files)
    assert hash_files(tmp_path / "back") == files


@pytest.mark.parametrize(
    "fault", [{"status": 503, "times": 2}, {"kind": "reset"}, {"kind": "cut", "bytes": 2_000_000}, {"status": 401}]
)
def test_a_download_survives(container, directory, files, azure, fault, tmp_path):
    upload_directory(container, "a", directory, files)
    azure.fault(method="GET", host="blob", path=LARGE, **fault)
    download_directory(container, "a", tmp_path / "back", files)
    assert [rule["used"] for rule in azure.faults()] == [fault.get("times", 1)]
    assert hash_files(tmp_path / "back") == files


def test_tokens_run_out_on_the_way(container, directory, files, azure, tmp_path):
    """They live for an hour, and a model takes longer on a slow line."""
    azure.token_lifetime(2)
    for round_trip in range(3):
        upload_directory(container, f"a{round_trip}", directory, files)
        time.sleep(1.5)
    download_directory(container, "a0", tmp_path / "back", files)
    assert hash_files(tmp_path / "back") == files
    assert len(azure.traffic("POST", "login", "token")) > 2


def test_a_block_that_arrives_otherwise_is_sent_again(container, directory, files, azure, tmp_path):
    azure.fault(
        method="PUT", host="blob", path=LARGE, status=400, code="Md5Mismatch", message="The MD5 value does not match."
    )
    upload_directory(container, "a", directory, files)
    assert [rule["used"] for rule in azure.faults()] == [1]
    download_directory(container, "a", tmp_path / "back", files)


@pytest.mark.parametrize("path", [LARGE, "sub folder/ü%41?#&+.txt"])
def test_the_service_is_told_the_md5_of_every_piece(container, directory, files, monkeypatch, path):
    """And refuses others: without it, what a network changes is stored as it arrived."""
    from azure.core.exceptions import HttpResponseError

    monkeypatch.setattr("phi3_assets.azure.errors.PAUSES_S", ())
    monkeypatch.setattr("phi3_assets.azure.transfer._md5_header", lambda _: {"Content-MD5": "A" * 22 + "=="})
    with pytest.raises(HttpResponseError, match="(?i)md5"):
        upload_directory(container, "a", directory, {path: files[path]})
    assert list_folder(container, "a") == {}


@pytest.mark.parametrize("path", [LARGE, "sub folder/ü%41?#&+.txt"])
def test_a_file_that_changed_becomes_no_blob(container, directory, files, path):
    content = bytearray((directory / path).read_bytes())
    content[-1] ^= 1
    (directory / path).write_bytes(content)
    with pytest.raises(DamagedArtefact, match="was changed while it was uploaded"):
        upload_directory(container, "a", directory, files)
    assert path not in list_folder(container, "a")


@pytest.mark.parametrize("path", [LARGE, "sub folder/ü%41?#&+.txt"])
def test_a_blob_that_changed_becomes_no_file(container, directory, files, tmp_path, path):
    upload_directory(container, "a", directory, files)
    content = bytearray((directory / path).read_bytes())
    content[-1] ^= 1
    container.upload_blob(f"a/{path}", bytes(content), overwrite=True)
    with pytest.raises(DamagedArtefact, match="was changed: its SHA-256 differs. Delete the artefact's directory"):
        download_directory(container, "a", tmp_path / "back", files)
    assert not (tmp_path / "back" / path).exists()


def test_a_blob_that_is_short_or_missing_is_named(container, directory, files, tmp_path):
    upload_directory(container, "a", directory, files)
    container.upload_blob(f"a/{LARGE}", b"short", overwrite=True)
    with pytest.raises(DamagedArtefact, match=r"large\.bin (is shorter|was changed)"):
        download_directory(container, "a", tmp_path / "back", files)
    container.delete_blob(f"a/{LARGE}")
    with pytest.raises(DamagedArtefact, match=r"large\.bin is missing"):
        download_directory(container, "a", tmp_path / "back", files)


@pytest.mark.parametrize("path", ["../out", "/etc/out", "sub/../../out"])
def test_a_manifest_does_not_lead_out_of_its_folder(container, tmp_path, path):
    """A container is written by jobs, and a manifest in it may say anything."""
    with pytest.raises(DamagedArtefact, match="leads out of its folder"):
        download_directory(container, "a", tmp_path / "back", {path: FileEntry(1, "0" * 64)})


def test_a_download_goes_on_where_it_was_cut_off(container, directory, files, azure, tmp_path):
    upload_directory(container, "a", directory, files)
    back = tmp_path / "back"
    back.mkdir()
    (back / LARGE).write_bytes((directory / LARGE).read_bytes()[:PIECE_BYTES])
    (back / "no longer there").write_bytes(b"")
    azure.clear()
    download_directory(container, "a", back, files)
    assert len(azure.traffic("GET", "blob", LARGE)) == 2  # of three pieces
    assert hash_files(back) == files


def test_a_beginning_that_is_another_files_is_fetched_anew(container, directory, files, tmp_path):
    upload_directory(container, "a", directory, files)
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / LARGE).write_bytes(bytes(PIECE_BYTES))
    download_directory(container, "a", tmp_path / "back", files)
    assert hash_files(tmp_path / "back") == files


MOVES = """
import sys
from pathlib import Path
from phi3_assets.azure.clients import Clients
from phi3_assets.azure.settings import load_settings
from phi3_assets.azure.transfer import download_directory, upload_directory
from phi3_assets.core.files import hash_files
container, source = Clients(load_settings()).container, Path(sys.argv[2])
files = hash_files(source)
upload_directory(container, "a", source, files)
if sys.argv[1] == "both":
    download_directory(container, "a", Path(sys.argv[3]), files)
    import resource
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
"""


def test_an_upload_that_was_killed_goes_on(container, azure, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / LARGE).write_bytes(os.urandom(6 * PIECE_BYTES))
    files = hash_files(source)
    # Two of six blocks get through; the others are held until long after the kill.
    azure.fault(method="PUT", host="blob", path=LARGE, skip=2, times=-1, kind="stall", seconds=20)
    process = subprocess.Popen([sys.executable, "-c", MOVES, "up", str(source)], env={**os.environ, **azure.env})
    while len(azure.traffic("PUT", "blob", LARGE)) < 2:
        assert process.poll() is None
        time.sleep(0.1)
    process.kill()
    process.wait()
    azure.clear()
    assert list_folder(container, "a") == {}  # nothing is visible
    upload_directory(container, "a", source, files)
    assert len(azure.traffic("PUT", "blob", LARGE)) == 5  # four blocks, and the list of them
    download_directory(container, "a", tmp_path / "back", files)
    assert hash_files(tmp_path / "back") == files


def test_memory_does_not_grow_with_the_file(container, azure, tmp_path):
    def peak_mib(pieces: int) -> int:
        source = tmp_path / str(pieces)
        source.mkdir()
        with (source / LARGE).open("wb") as file:
            file.truncate(pieces * PIECE_BYTES)
        done = subprocess.run(
            [sys.executable, "-c", MOVES, "both", str(source), str(tmp_path / f"back-{pieces}")],
            env={**os.environ, **azure.env},
            capture_output=True,
            text=True,
            check=True,
        )
        return int(done.stdout)

    assert peak_mib(40) - peak_mib(20) < 20 * 8 / 2
