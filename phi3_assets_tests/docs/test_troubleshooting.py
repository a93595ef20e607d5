"""docs/troubleshooting.md quotes what is really said: whoever looks for a message finds it there word for word."""

import ast
import re
from functools import cache

from phi3_assets_tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
FAILED = "FAILED: "
"""What `phi3 run` puts before a check's name."""


def quoted(text: str) -> list[str]:
    """What the tables say is said: in the first column, and after a colon in the second."""
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    first = [span for row in rows for span in re.findall(r"`([^`]+)`", row.split(" | ")[0])]
    return first + [span for row in rows for span in re.findall(r": `([^`]+)` \|$", row)]


@cache
def said() -> str:
    """Every text in the sources, as it is put together; what is filled in is a zero byte. Docstrings say nothing."""
    texts = [(ROOT / "Makefile").read_text(encoding="utf-8")]
    for path in sorted((ROOT / "phi3_assets").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(str(p.value) if isinstance(p, ast.Constant) else "\0" for p in node.values))
            elif isinstance(node, ast.FunctionDef):
                texts.append(node.name)  # of a check, after FAILED:
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(texts)


def missing(text: str) -> list[str]:
    """Quoted messages that nothing says; "..." stands for what is filled in."""
    wanted = {one: re.escape(one.removeprefix(FAILED)).replace(r"\.\.\.", ".{1,200}") for one in quoted(text)}
    return [one for one, pattern in wanted.items() if not re.search(pattern, said())]


def test_every_message_is_one_that_is_said():
    text = PAGE.read_text(encoding="utf-8")
    assert missing(text) == []
    assert len(quoted(text)) > 25


def test_a_message_that_was_reworded_is_seen():
    page = "| what is said | why |\n|---|---|\n| `The disk is full: step ` | a |\n| `The disk is rather full` | b |\n"
    assert missing(page) == ["The disk is rather full"]
    assert missing("| Ctrl-C | it stops: `Halted for good` |\n") == ["Halted for good"]
