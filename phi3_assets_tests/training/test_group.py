"""Processes that only meet: each learns what ended another, none waits for ever, and all get the first one's files."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from phi3_assets_tests.steps.ranks import free_port

SCRIPT = """
import os, signal, sys
from pathlib import Path
from phi3_assets.core.errors import TransientError, UserError
from phi3_assets.training import group as meeting
from phi3_assets.training.ranks import given_rank

meeting.COLLECTIVE_S = 3.0
meeting.MEET_S = float(os.environ.get("MEET_S", 60))
rank = given_rank(os.environ)
with meeting.joined(rank) as group:
{body}
print("done", group.processes_here)
"""


def run_together(tmp_path: Path, body: str, of: int = 2, nodes: int = 2, started: int = 0) -> list[tuple[int, str]]:
    """Run `body` in each; exit codes and last lines, by rank. What hangs is killed 12 s after the first has ended."""
    script = SCRIPT.format(body="\n".join(f"    {line}" for line in body.strip().splitlines()))
    port = str(free_port())
    processes = []
    started = started or of
    for rank in range(started):
        place = {"RANK": rank, "WORLD_SIZE": of, "LOCAL_RANK": rank * nodes // of, "NODE_RANK": rank % nodes}
        env = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        env |= {name: str(value) for name, value in place.items()}
        (tmp_path / str(rank)).mkdir()
        output = (tmp_path / str(rank) / "log.txt").open("w")
        command = [sys.executable, "-c", script]
        processes.append(subprocess.Popen(command, env=env, cwd=tmp_path / str(rank), stdout=output, stderr=output))
    deadline, ended = time.monotonic() + 90, False
    while (running := [process for process in processes if process.poll() is None]) and time.monotonic() < deadline:
        if len(running) < started:
            deadline = min(deadline, time.monotonic() + 12) if not ended else deadline
            ended = True
        time.sleep(0.05)
    for process in running:
        process.kill()
    codes = [process.wait() for process in processes]
    lines = [(tmp_path / str(rank) / "log.txt").read_text().strip().splitlines()[-1:] for rank in range(started)]
    return [(code, line[0] if line else "") for code, line in zip(codes, lines, strict=True)]


def test_all_are_done_when_the_first_is(tmp_path: Path) -> None:
    """And each knows how many share its machine."""
    assert run_together(tmp_path, "pass", of=3) == [(0, "done 2"), (0, "done 1"), (0, "done 2")]


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        ("UserError('no rows')", "phi3_assets.core.errors.UserError: rank 1 of 2 (node 1): no rows"),
        ("TransientError('full')", "phi3_assets.core.errors.TransientError: rank 1 of 2 (node 1): full"),
        ("KeyError('x')", "RuntimeError: rank 1 of 2 (node 1): KeyError: 'x'"),
    ],
)
def test_the_first_tells_what_ended_another(raised, told, tmp_path: Path) -> None:
    first, other = run_together(tmp_path, f"if rank.number == 1:\n    raise {raised}")
    assert (first[0], other[0]) == (1, 1)
    assert first[1].endswith(told)


@pytest.mark.parametrize("number", ["SIGKILL", "SIGSTOP"])
def test_nobody_waits_for_one_that_is_gone_or_hangs(number, tmp_path: Path) -> None:
    first, other = run_together(tmp_path, f"if rank.number == 1:\n    os.kill(os.getpid(), signal.{number})")
    assert first[0] == 1
    assert "TransientError: rank 0 of 2 (node 0) lost another that trains with it" in first[1]
    assert other[0] == -9


@pytest.mark.parametrize("number", ["SIGKILL", pytest.param("SIGSTOP", marks=pytest.mark.slow)])
def test_nor_for_the_first_one(number, tmp_path: Path) -> None:
    first, other = run_together(
        tmp_path,
        f"""
if rank.leads:
    if os.fork():
        os.kill(os.getpid(), signal.{number})
    os._exit(0)
""",
    )
    assert first[0] == -9
    assert other[0] == 1
    assert "TransientError: rank 1 of 2 (node 1) lost another that trains with it" in other[1]


def test_nobody_waits_for_one_that_never_starts(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MEET_S", "3")
    first, other = run_together(tmp_path, "pass", of=3, started=2)
    for rank, (code, line) in enumerate((first, other)):
        assert code == 1
        assert f"TransientError: rank {rank} of 3 (node {rank}) did not meet the others at 127.0.0.1:" in line


def test_the_firsts_checkpoint_becomes_that_of_all(tmp_path: Path) -> None:
    """In pieces, an empty file and a last piece among them, in the place of what the others had."""
    done = run_together(
        tmp_path,
        """
from phi3_assets.core.sealing import seal
meeting._PIECE_BYTES = 1000
folder = Path("checkpoints") / f"checkpoint-{7 + rank.number}"
folder.mkdir(parents=True)
(folder / "weights").write_bytes(bytes([rank.number]) * 2500)
(folder / "empty").write_bytes(b"")
seal(folder, folder.name)
assert group.share_checkpoint(Path("checkpoints"), 7 + rank.number) == 7
""",
    )
    assert done == [(0, "done 1"), (0, "done 1")]
    assert [path.name for path in (tmp_path / "1" / "checkpoints").iterdir()] == ["checkpoint-7"]
    for path in (tmp_path / "0" / "checkpoints" / "checkpoint-7").iterdir():
        assert (tmp_path / "1" / "checkpoints" / "checkpoint-7" / path.name).read_bytes() == path.read_bytes()


def test_where_the_first_has_none_all_begin_at_the_start(tmp_path: Path) -> None:
    done = run_together(
        tmp_path,
        """
(Path("checkpoints") / "checkpoint-9").mkdir(parents=True)
assert group.share_checkpoint(Path("checkpoints"), None if rank.leads else 9) is None
""",
    )
    assert done == [(0, "done 1"), (0, "done 1")]
    assert not (tmp_path / "1" / "checkpoints").exists()
