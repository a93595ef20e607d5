"""Reads the file of an Olive configuration as people have it: JSON with comments, a template, a byte order mark, YAML.

What the reader mends is what cannot change a meaning: comments, a comma too many, a placeholder without quotes.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi3_assets.core.errors import UserError
from phi3_assets.core.files import open_file
from phi3_assets.core.recipe_file import read_yaml

MAX_CONFIG_BYTES = 1 << 20
MAX_DEPTH = 64
_OLIVES = ("input_model", "passes", "data_configs", "systems", "engine", "evaluators")
_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
# AI Toolkit's templates have lines that begin with '#', '<!-- -->', and <lora_r> without quotes in a value's place.
_TOKEN = re.compile(
    r'(?P<string>"(?:\\.|[^"\\])*")'
    r"|(?P<comment>//[^\n]*|/\*.*?\*/|\#[^\n]*|<!--.*?-->|\{%[^\n]*?%\})"
    r"|(?P<hole><[A-Za-z_][\w .-]*>|\{\{[^{}\n]*\}\}|\$\{[^{}\n]*\})",
    re.DOTALL,
)
_COMMA = re.compile(r'(?P<string>"(?:\\.|[^"\\])*")|,(?=\s*[}\]])')


class _Repeated(ValueError):
    """A key that stands twice in one object: which of the two is meant cannot be told."""


def read_config(path: Path) -> dict[str, Any]:
    """Read a configuration.

    Raises:
        UserError: It cannot be read, is neither JSON nor YAML, or is no configuration of Olive.
    """
    where = f"Olive configuration {path}"
    try:
        with open_file(path) as file:
            content = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise UserError(f"{where} cannot be read: {error.strerror}.") from None
    if len(content) > MAX_CONFIG_BYTES:
        raise UserError(f"{where} is larger than {MAX_CONFIG_BYTES >> 20} MiB, so it is none.")
    try:
        text = content.decode(_BYTE_ORDER_MARKS.get(content[:2], _BYTE_ORDER_MARKS.get(content[:3], "utf-8")))
    except UnicodeDecodeError:
        raise UserError(f"{where} is not UTF-8. Save it as UTF-8.") from None
    if path.suffix in (".yaml", ".yml") or not (".json" in path.suffixes or text.lstrip()[:1] in "{["):
        config = read_yaml(text, where)
    else:
        config = _read_json(text, where)
    if not isinstance(config, dict):
        raise UserError(f"{where} must be a mapping with keys such as input_model and passes.")
    config = {str(name): plain(value, 1) for name, value in config.items()}
    if not any(name in config for name in _OLIVES):
        found = ", ".join(map(repr, list(config)[:5])) or "nothing"
        raise UserError(f"{where} is none: it has {found}, but none of {', '.join(_OLIVES)}.")
    return config


def plain(value: Any, depth: int = 0) -> Any:
    """The value in JSON's terms, its keys as text.

    Raises:
        UserError: It is nested too deeply to be a configuration.
    """
    if depth > MAX_DEPTH:
        raise UserError(f"The Olive configuration is nested more than {MAX_DEPTH} levels deep, so it is none.")
    if isinstance(value, Mapping):
        return {str(name): plain(inner, depth + 1) for name, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(inner, depth + 1) for inner in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _read_json(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except _Repeated as error:
        raise UserError(f"{where}: {error}") from None
    except RecursionError:
        raise UserError(f"{where} is not valid JSON: it is nested too deeply.") from None
    except ValueError as error:
        problem = str(error)
    try:
        return json.loads(_COMMA.sub(_strings_alone, _TOKEN.sub(_mended, text)), object_pairs_hook=_unique)
    except _Repeated as error:
        raise UserError(f"{where}: {error}") from None
    except (ValueError, RecursionError):
        raise UserError(f"{where} is not valid JSON: {problem}.") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Repeated(f"{twice!r} stands more than once in one place; take out the one that is not meant.")
    return found


def _mended(match: re.Match[str]) -> str:
    if hole := match["hole"]:
        return json.dumps(hole)
    return match["string"] or " "


def _strings_alone(match: re.Match[str]) -> str:
    return match["string"] or ""
