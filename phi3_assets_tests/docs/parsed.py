"""Is a command one that its program would take? Asked of the program's own parser, and nothing is done."""

import subprocess
from collections.abc import Callable
from itertools import pairwise

import yaml
from typer.testing import CliRunner

from benchmarks.__main__ import names as benchmarks
from phi3_assets.cli.app import app
from phi3_assets.cli.options import parse_overrides
from phi3_assets.core.errors import UserError
from phi3_assets_tests.docs.pages import ROOT, Command


def refused(command: Command) -> str:
    """Why a program would not take this; "": it would."""
    syntax = subprocess.run(["bash", "-n", "-c", command.text], capture_output=True, text=True)
    if syntax.returncode:
        return syntax.stderr
    return _PARSERS.get(command.program, lambda words: "")(command.words[1:])


def _phi3(words: list[str]) -> str:
    """`phi3`: the names of its commands and options, by their own --help; and the fields behind --set."""
    words = words[: next((at for at, word in enumerate(words) if word in (">", "|", "<")), len(words))]
    asked = CliRunner().invoke(app, [*words, "--help"])
    if asked.exit_code:
        return asked.output
    try:
        parse_overrides([word for before, word in pairwise(words) if before == "--set"])
    except UserError as error:
        return str(error)
    return ""


def _make(words: list[str]) -> str:
    """`make`: there is such a target."""
    done = subprocess.run(["make", "--dry-run", *words], cwd=ROOT, capture_output=True, text=True)
    return done.stderr if done.returncode else ""


def _python(words: list[str]) -> str:
    """`python -m MODULE`: it is there, and a benchmark has its name; `python FILE`: of the home's examples."""
    if words[0] != "-m":
        return "" if (ROOT / words[0].replace("home/inferences", "phi3_assets/chat/examples")).exists() else words[0]
    path = ROOT / words[1].replace(".", "/")
    if not (path.with_suffix(".py").exists() or (path / "__main__.py").exists()):
        return f"no module {words[1]}"
    named = [word for word in words[2:3] if words[1] == "benchmarks" and not word.startswith("-")]
    return "" if set(named) <= set(benchmarks()) else f"no benchmark {named[0]}"


def _docker(words: list[str]) -> str:
    """`docker compose`: files, profiles and services are those of compose.yaml. Docker itself is not asked."""
    files = [word for before, word in pairwise(words) if before == "-f"] or ["compose.yaml"]
    missing = [name for name in files if not (ROOT / name).exists()]
    services = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    profiles = {profile for service in services.values() for profile in service.get("profiles", [])}
    asked = [word for before, word in pairwise(words) if before == "--profile"]
    missing += sorted(set(asked) - profiles)
    inner: list[str] = []
    if {"exec", "run"} & set(words):
        after = words[next(at for at, word in enumerate(words) if word in ("exec", "run")) + 1 :]
        service, *inner = [word for word in after if word != "--rm"]
        missing += [service] if service not in services else []
    if missing:
        return f"compose.yaml has no {', '.join(missing)}"
    return _phi3(inner[1:]) if inner[:1] == ["phi3"] else ""


_PARSERS: dict[str, Callable[[list[str]], str]] = {
    "phi3": _phi3,
    "make": _make,
    "python": _python,
    "docker": _docker,
}
