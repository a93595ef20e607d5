"""Rows that benchmarks are run on: of random words, of people's text, and of the sample."""

import ast
import csv
import json
import random
import re
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from phi3_assets.core.home import SAMPLE

FILES = 4
# Words of a question and of its answer, and how many of both a conversation has. A word is about 1.3 tokens.
SHAPES = {
    "questions": (8, 10, 1),
    "chat": (90, 150, 1),
    "documents": (1100, 75, 1),
    "several turns": (25, 45, 5),
}
DOCUMENTED = ("torch", "transformers", "pandas", "scipy", "numpy", "dagster", "azure", "matplotlib")


def _words() -> list[str]:
    """English words, in the order of the alphabet."""
    from pydoc_data.topics import topics

    return sorted({word for text in topics.values() for word in re.findall(r"\b[a-z]{2,10}\b", text)})


def write_docstrings(folder: Path) -> int:
    """Questions about the code that is installed here, answered by its docstrings: text that people wrote, in files.

    Returns:
        Rows.
    """
    lines = []
    for package in DOCUMENTED:
        for path in sorted((Path(sysconfig.get_path("purelib")) / package).rglob("*.py")):
            for name, text in _docstrings(path):
                turns = [
                    {"role": "user", "content": f"What does {name} of {package} do?"},
                    {"role": "assistant", "content": text},
                ]
                lines.append(json.dumps({"messages": turns}) + "\n")
    folder.mkdir(exist_ok=True)
    for part in range(FILES):
        (folder / f"docstrings-{part}.jsonl").write_text("".join(lines[part::FILES]), encoding="utf-8")
    return len(lines)


def _docstrings(path: Path) -> Iterator[tuple[str, str]]:
    with suppress(SyntaxError, UnicodeDecodeError):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
                yield node.name, text


def write_chats(folder: Path, shape: str, rows: int) -> None:
    """Conversations of random English words, a quarter longer or shorter than the shape says, in a few JSONL files."""
    words, chooser = _words(), random.Random(0)
    question_words, answer_words, turns = SHAPES[shape]

    def say(role: str, count: int) -> dict[str, str]:
        chosen = chooser.choices(words, k=chooser.randint(count * 3 // 4, count * 5 // 4))
        return {"role": role, "content": f"{' '.join(chosen).capitalize()}."}

    folder.mkdir(exist_ok=True)
    for part in range(FILES):
        with (folder / f"chats-{part}.jsonl").open("w", encoding="utf-8") as out:
            for _ in range(rows // FILES):
                pairs = [(say("user", question_words), say("assistant", answer_words)) for _ in range(turns)]
                out.write(json.dumps({"messages": [turn for pair in pairs for turn in pair]}) + "\n")


def write_rows(folder: Path, rows: int, name: str = "rows", seed: int = 0, answer_words: int = 0) -> None:
    """Questions and answers of random English words in the seed's columns, in a few CSV files."""
    words = _words()
    chooser = random.Random(seed)
    folder.mkdir(exist_ok=True)
    files = FILES if name == "rows" else 1
    for part in range(files):
        with (folder / f"{name}-{part}.csv").open("w", newline="", encoding="utf-8") as out:
            writer = csv.writer(out)
            writer.writerow(["Question", "Best Answer"])
            for _ in range(rows // files):
                question = " ".join(chooser.choices(words, k=chooser.randint(5, 10)))
                answer = " ".join(chooser.choices(words, k=answer_words or chooser.randint(6, 14)))
                writer.writerow([f"{question.capitalize()}?", f"{answer.capitalize()}."])


def write_sample(folder: Path, rows: int) -> None:
    """The first rows of the sample, in one CSV file."""
    folder.mkdir(parents=True, exist_ok=True)
    with (SAMPLE / "operations_desk.csv").open(encoding="utf-8", newline="") as source:
        first = list(islice(csv.reader(source), rows + 1))
    with (folder / "rows.csv").open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows(first)
