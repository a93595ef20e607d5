"""What a page tells its reader to type: its console blocks, and the commands within its sentences."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
PROMPT = "$ "
_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Command:
    """One command of a page.

    Attributes:
        page: File name.
        line: From 1.
        text: As bash takes it, over several lines where it is, its comment included.
    """

    page: str
    line: int
    text: str

    @property
    def words(self) -> list[str]:
        """Its words without comment, redirections of a shell among them; without variables set for it alone."""
        words = shlex.split(self.text, comments=True)
        while words and re.match(r"[A-Z_]\w*=", words[0]):
            words.pop(0)
        return words

    @property
    def program(self) -> str:
        """What it calls, without the virtual environment's folder; "" where it sets variables only."""
        first = self.words[0] if self.words else ""
        return re.sub(r"^\w+=\$\(", "", first).removeprefix(".venv/bin/")

    def __str__(self) -> str:
        """Where it stands."""
        return f"{self.page}:{self.line}"


def typed(page: Path) -> list[Command]:
    """The commands of a page's console blocks: behind the prompt, with the lines that belong to them."""
    text = page.read_text(encoding="utf-8")
    found = []
    for block in _FENCE.finditer(text):
        first = text.count("\n", 0, block.start(2)) + 1
        if block[1] == "console":
            found += _of_block(page.name, first, block[2].splitlines())
    return found


def _of_block(page: str, first: int, lines: list[str]) -> list[Command]:
    """What is neither behind a prompt nor goes on with a command is what the command says."""
    found = []
    rest = list(enumerate(lines, first))
    while rest:
        number, line = rest.pop(0)
        if not line.startswith(PROMPT):
            continue
        parts = [line.removeprefix(PROMPT)]
        here = re.search(r"<<'(\w+)'", line)
        while rest and (parts[-1].endswith("\\") or (here and parts[-1] != here[1])):
            parts.append(rest.pop(0)[1])
        found.append(Command(page, number, "\n".join(parts)))
    return found


def mentioned(page: Path) -> list[Command]:
    """Commands within sentences and tables: what stands in backticks and begins with a program of this project."""
    prose = _FENCE.sub(lambda block: "\n" * block[0].count("\n"), page.read_text(encoding="utf-8"))
    found = []
    for number, line in enumerate(prose.splitlines(), 1):
        spans = _SPAN.findall(line)
        found += [Command(page.name, number, span) for span in spans if _IS_COMMAND.match(span)]
    return found


_IS_COMMAND = re.compile(r"(\.venv/bin/)?(phi3|python -m|make|docker compose) ")


def untyped(page: Path) -> list[str]:
    """Lines outside of console blocks that look like commands to type, where no test would see them."""
    text = page.read_text(encoding="utf-8")
    prose = _FENCE.sub("", text)
    lost = [line for line in prose.splitlines() if re.match(r"    (\$ )?(\.venv/bin/|phi3 \w|make \w)", line)]
    for block in _FENCE.finditer(text):
        if block[1] != "console":
            lost += [line for line in block[2].splitlines() if line.startswith(PROMPT)]
    return lost
