"""Odd files, closed folders and full disks: each ends `phi3` with `error: ...` in one sentence and exit code 1."""

import contextlib
import os
import subprocess
from pathlib import Path

import psycopg2
import pytest
from typer.testing import CliRunner

from phi3_assets.cli.app import app
from phi3_assets.core.disk import of_the_database, of_the_disk
from phi3_assets.core.errors import DamagedArtefact, UserError
from phi3_assets.core.home import initialise
from phi3_assets.core.ledger import product_key
from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.release.champion import Champion
from phi3_assets.resources.local_ledger import LocalLedger
from phi3_assets_tests import harms
from phi3_assets_tests.conftest import clean_env
from phi3_assets_tests.tiny_graph import PHI3, TINY

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)


def ends(*arguments: str, cwd: Path | None = None, timeout_s: float = 60, **process) -> str:
    """Run `phi3`; it must fail with one sentence, which is returned."""
    done = subprocess.run(
        [*PHI3, *arguments],
        env=clean_env(PYTHONPATH=str(Path(__file__).parents[2])),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        cwd=cwd,
        **process,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1, done.stderr
    return said[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (BOMB.encode(), "anchors and aliases are not taken, line 2"),
        (b"lora_r: [\n", "is not valid YAML"),
        ("system_prompt: Grüße\n".encode("latin-1"), "is not UTF-8 (line 1)"),
        (b"[" * 2000, "nested too deeply"),
        (b"lora_r: 2026-13-01\n", "is not valid YAML: month must be in 1..12"),
        (b"#" * (2 << 20), "is larger than 1 MiB"),
        (b"lora_r: " + b"x" * 100_000, "lora_r: Input should be a valid integer"),
        (b"lora_r: \x00", "is not valid YAML"),
    ],
)
def test_a_recipe_that_is_no_recipe(tmp_path, content, said):
    """A bomb of anchors took the machine's memory when its value was shown; the others were tracebacks."""
    (tmp_path / "r.yaml").write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_recipe(str(tmp_path / "r.yaml"))
    assert said in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_recipe_that_is_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "r.yaml")
    with pytest.raises(UserError, match=r"cannot be read \(Not a plain file"):
        load_recipe(str(tmp_path / "r.yaml"))


def test_a_value_that_is_no_yaml():
    assert "--set 'lora_r=[': the value is not valid YAML" in ends("run", "--set", "lora_r=[")


def test_a_relative_home(tmp_path, monkeypatch):
    """Dagster refuses a relative DAGSTER_HOME with a traceback: made absolute where it enters, for every command."""
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["init", "--home", "home"])
    assert done.output.strip() == f"Laid out {tmp_path / 'home'}."


@contextlib.contextmanager
def small_disk(path: Path, kilobytes: int):
    with harms.small_disk(path, kilobytes << 10) as mounted:
        if not mounted:
            pytest.skip("no right to mount here")
        yield path


@pytest.mark.parametrize("laid_out", [False, True])
def test_a_home_that_may_not_be_written(tmp_path, laid_out):
    with small_disk(tmp_path / "disk", 4000) as disk:
        home = disk / "home"
        if laid_out:
            initialise(home)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        said = ends("run", *TINY, "--home", str(home))
    assert f"{home}" in said
    assert "cannot be read or written (Read-only file system). Change its permissions" in said


@pytest.mark.parametrize("kilobytes", [16, 200])
def test_a_full_disk_at_dagsters_own_database(tmp_path, home, kilobytes):
    """`database or disk is full`, in a traceback of sixty lines, and not a word of which disk."""
    with small_disk(tmp_path / "small", kilobytes) as small:
        env = clean_env(PYTHONPATH=str(Path(__file__).parents[2]), DAGSTER_HOME=str(small))
        done = subprocess.run(
            [*PHI3, "run", *TINY, "--to", "raw_dataset", "--home", str(home)],
            env=env,
            capture_output=True,
            text=True,
            timeout=100,
        )
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr, done.stderr[-3000:]
    assert "error: The disk is full" in done.stderr
    assert str(small) in done.stderr


def test_a_journal_that_does_not_fit_is_a_full_disk_too(tmp_path):
    """With 700 KB SQLite fails in its journal, and says "disk I/O error"."""
    error = RuntimeError("(sqlite3.OperationalError) disk I/O error")
    with small_disk(tmp_path / "small", 700) as small:
        assert "The disk is full" in str(of_the_disk(error, str(small)))
    assert "cannot be used (disk I/O error)" in str(of_the_disk(error, str(tmp_path)))
    assert of_the_disk(RuntimeError("a defect"), str(tmp_path)) is None


def test_a_database_that_went_away_is_named_as_such():
    """Dagster wraps the driver's error twice, and ended in a traceback of a hundred lines."""
    wrapped = RuntimeError("too many retries for DB connection")
    wrapped.__cause__ = psycopg2.OperationalError("server closed the connection unexpectedly\n")
    said = str(of_the_database(wrapped))
    assert "server closed the connection unexpectedly. What was made is kept" in said
    assert of_the_database(RuntimeError("a defect")) is None
    assert of_the_database(psycopg2.ProgrammingError("a defect")) is None


@pytest.mark.parametrize("content", [b"", b"[", b"\xff", b"[]", b'{"format": 1}', b"[" * 100_000])
def test_a_damaged_champion(tmp_path, content):
    ledger = LocalLedger(tmp_path)
    ledger.write(product_key("desk", "champion.json"), content, None)
    with pytest.raises(DamagedArtefact, match=r"champion\.json is damaged.*Restore it from a backup"):
        Champion(ledger, "desk").history()


@pytest.mark.parametrize(
    ("key", "command"),
    [("champion.json", ["champion", "show"]), ("latest/onnx_int4_model.json", ["chat", "Why?"])],
)
def test_a_damaged_value_of_the_ledger_is_named_with_the_way_out(home, key, command):
    """A damaged champion file or pointer ended in a traceback."""
    path = home / "ledger" / "products" / "operations-desk" / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\xff")
    said = ends(*command, "--home", str(home))
    assert f"{path} is damaged" in said
    assert "Restore it from a backup, or delete it" in said
