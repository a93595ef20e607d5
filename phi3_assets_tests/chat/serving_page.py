"""Runs `phi3 web` or `phi3 chat --web` as a user does, in a process of its own, and asks it over HTTP."""

import contextlib
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from phi3_assets_tests.conftest import clean_env
from phi3_assets_tests.tiny_graph import PHI3


class Page:
    """A running server: its address, and all it printed once it has ended."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process, self.url, self.printed = process, url, ""

    def end(self) -> int:
        """Ctrl-C; returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        self.printed, _ = self.process.communicate(timeout=30)
        return self.process.returncode

    def ask(self, variant: str, *texts: str, **more: Any) -> list[dict[str, Any]]:
        """All events of an answer; texts are the user's and the assistant's by turns."""
        with self.asking(variant, *texts, **more) as lines:
            return [json.loads(line) for line in lines]

    @contextlib.contextmanager
    def asking(self, variant: str, *texts: str, **more: Any) -> Iterator[Iterator[str]]:
        """The lines of an answer as they come; leaving ends the connection."""
        turns = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
        body = {"variant": variant, "turns": turns, **more}
        with httpx.stream("POST", f"{self.url}/chat/answer", json=body, timeout=60) as response:
            assert response.status_code == 200, response.read()
            yield response.iter_lines()


@contextlib.contextmanager
def running_page(home: Path, *arguments: str, command: tuple[str, ...] = ("chat", "--web")) -> Iterator[Page]:
    """`phi3 chat --web`, or another command, on a free port."""
    process = subprocess.Popen(
        [*PHI3, *command, "--port", "0", "--home", str(home), *arguments],
        env=clean_env(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", first)
        assert found, first + process.stdout.read()
        yield Page(process, found.group())
    finally:
        process.kill()
        process.wait()


def text_of(events: list[dict[str, Any]]) -> str:
    """What was answered."""
    return "".join(event.get("text", "") for event in events)
