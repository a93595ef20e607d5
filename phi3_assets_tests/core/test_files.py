"""What stands in a folder that is not ours: one rule, nothing that hangs, and writes that are whole or not at all."""

import json
import os
import socket
import tempfile
import threading
from pathlib import Path

import pytest

from phi3_assets.core.errors import UserError
from phi3_assets.core.files import write_atomically
from phi3_assets.core.manifest import digest_of, fingerprint
from phi3_assets.data.read.sources import list_files
from phi3_assets.data.watched.folder import Reading
from phi3_assets.data.watched.folder import look as watch


def _fifo(folder: Path) -> None:
    os.mkfifo(folder / "odd.csv")


def _socket(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(folder / "odd.csv"))


def _link(to: str):
    return lambda folder: (folder / "odd.csv").symlink_to(to)


def _not_utf8(folder: Path) -> None:
    (folder / os.fsdecode(b"odd-\xff.csv")).write_text("x")


ODD = {
    "FIFO": (_fifo, r"odd\.csv is a pipe \(FIFO\)"),
    "socket": (_socket, r"odd\.csv is a socket"),
    "device": (_link("/dev/zero"), r"odd\.csv is a link that leads out of the folder"),
    "dangling link": (_link("nothing.csv"), r"odd\.csv is a link to nothing"),
    "link to itself": (_link("odd.csv"), r"odd\.csv (is a link to nothing|cannot be looked at)"),
    "link out": (_link("/etc/passwd"), r"odd\.csv is a link that leads out of the folder"),
    "linked folder": (_link("/etc"), r"odd\.csv is a link that leads out of the folder"),
    "name that is not UTF-8": (_not_utf8, r"the name of 'odd-\\\\xff.csv' is not UTF-8"),
}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "datasets"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.csv").write_text("Question,Best Answer\nq,a\n")
    (folder / "sub" / "b.csv").write_text("Question,Best Answer\nr,b\n")
    return folder


def look(folder):
    """What each of the three that look at a dataset folder sees in it."""
    return {
        "reader": lambda: {file.name for file in list_files(folder)[0]},
        "identity": lambda: set(fingerprint(folder, "Dataset folder", "datasets")),
        "sensor": lambda: set(watch(folder, {}, 2e9, Reading(settle_s=0, until=0)).files),
    }


@pytest.mark.timeout(20)
@pytest.mark.parametrize("who", ["reader", "identity", "sensor"])
@pytest.mark.parametrize(("make", "said"), ODD.values(), ids=ODD)
def test_what_is_no_file_is_named_and_nobody_waits_for_it(folder, make, said, who):
    """A pipe in datasets held the run for ever; a socket or a dangling link was a traceback, a name not UTF-8 too."""
    make(folder)
    with pytest.raises(UserError, match=rf"Dataset folder .*{said}"):
        look(folder)[who]()


@pytest.mark.skipif(not Path("/dev/zero").is_char_device() or os.geteuid() != 0, reason="mknod is root's")
def test_a_device_file_is_named(folder):
    try:
        os.mknod(folder / "odd.csv", 0o020644, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("no right to make devices here")
    for one in look(folder).values():
        with pytest.raises(UserError, match=r"odd\.csv is a device"):
            one()


def test_reader_identity_and_sensor_see_the_same_files(folder):
    """`_x.csv` was in the identity and not read; manifest.json was read and in no identity."""
    (folder / "manifest.json").write_text('[{"Question": "q", "Best Answer": "a"}]')
    (folder / "sub" / "manifest.json").write_text('[{"Question": "r", "Best Answer": "b"}]')
    (folder / "readme.md").write_text("notes")
    (folder / "inside.csv").symlink_to("a.csv")
    for name in (".hidden.csv", "_SUCCESS", "_part.csv", ".DS_Store", "Thumbs.db", "desktop.ini", "c.csv.part"):
        (folder / name).write_text("x")
    (folder / "~$list.xlsx").write_text("x")
    (folder / "_temporary").mkdir()
    (folder / "_temporary" / "part.csv").write_text("x")
    seen = {who: one() for who, one in look(folder).items()}
    expected = {"a.csv", "manifest.json", "sub/b.csv", "sub/manifest.json"}
    assert seen == dict.fromkeys(("reader", "identity", "sensor"), expected)


def test_what_links_lead_to_is_read_once(folder):
    """A linked folder was unread while every_file_is_read passed; Kubernetes and the hub's cache link all they hold."""
    (folder / "..data_1" / "deep").mkdir(parents=True)
    (folder / "..data_1" / "deep" / "c.csv").write_text("Question,Best Answer\ns,c\n")
    (folder / "blob").write_text("Question,Best Answer\nt,d\n")
    (folder / "..data").symlink_to("..data_1")
    (folder / "deep").symlink_to("..data/deep")
    (folder / "again").symlink_to("sub")
    (folder / "d.csv").symlink_to("blob")
    (folder / "e.csv").symlink_to("d.csv")
    (folder / "round").symlink_to(".")
    for who, one in look(folder).items():
        assert one() == {"a.csv", "sub/b.csv", "deep/c.csv", "d.csv"}, who


def test_a_users_manifest_json_counts(folder):
    """An edit of a file with this name trained nothing anew."""
    (folder / "manifest.json").write_text("[]")
    before = digest_of(fingerprint(folder, "Dataset folder"))
    (folder / "manifest.json").write_text("[1]")
    assert digest_of(fingerprint(folder, "Dataset folder")) != before


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user for a moment")
@pytest.mark.parametrize("target", ["a.csv", "sub"])
def test_what_may_not_be_read_is_named(target):
    """A file was a traceback; a folder was left out by os.walk, and the run trained on the rest."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        folder = Path(name)
        (folder / "sub").mkdir()
        (folder / "a.csv").write_text("a")
        (folder / "sub" / "b.csv").write_text("b")
        folder.chmod(0o755)
        (folder / target).chmod(0)
        os.seteuid(65534)
        try:
            for one in (look(folder)["identity"], look(folder)["sensor"]):
                with pytest.raises(UserError, match=rf"{target}.*Permission denied|Permission.*{target}"):
                    one()
        finally:
            os.seteuid(0)


def test_threads_that_write_one_file_do_not_meet(tmp_path):
    """The temporary name was made of the process number: two threads, or two containers, wrote into one file."""
    path = tmp_path / "value.json"
    failed = []

    def write(number: int) -> None:
        try:
            for _ in range(40):
                write_atomically(path, json.dumps([number] * 2000))
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            assert len(set(json.loads(path.read_text()))) == 1
    assert failed == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["value.json"]


def test_a_killed_writers_leftover_goes_and_a_living_ones_stays(tmp_path):
    old, new = tmp_path / ".value.json.aa.tmp", tmp_path / ".value.json.bb.tmp"
    for path in (old, new):
        path.write_text("half")
    os.utime(old, (1e9, 1e9))
    write_atomically(tmp_path / "value.json", "{}")
    assert {path.name for path in tmp_path.iterdir()} == {"value.json", ".value.json.bb.tmp"}
