"""The ledger: the little that changes beside the artefacts, and must outlive a machine.

Pointers, frozen test sets, the champion and its history, decisions. A ledger maps slash-separated keys to small values
and knows four verbs; the one that matters is "write if unchanged", which is what a blob store offers too, so nothing
above it needs a lock. What belongs to one line of models stands under `products/<product>/`, what belongs to one run
under `runs/<run id>/`.
"""

import json
import random
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from phi3_assets.core.errors import DamagedArtefact

_KEY = re.compile(r"[\w.-]+(/[\w.-]+)*")
TRIES = 50
_PAUSE_S = 0.02


class LedgerConflict(Exception):
    """Somebody else wrote the value since it was read."""


@dataclass(frozen=True)
class Value:
    """A value as it was read.

    Attributes:
        content: Its bytes.
        version: Names this state of it; handed to `Ledger.write`.
    """

    content: bytes
    version: str


def check_key(key: str) -> str:
    """The key, if it is one; ".." is no part of any, so none leads out of a ledger's folder."""
    if not _KEY.fullmatch(key) or ".." in key.split("/"):
        raise ValueError(f"{key!r} is no key of a ledger.")
    return key


class Ledger(ABC):
    """Small values by key. Every single read and write is whole: nobody sees half a value."""

    @abstractmethod
    def read(self, key: str) -> Value | None:
        """The value under `key`, or None when there is none."""

    @abstractmethod
    def write(self, key: str, content: bytes, unchanged: str | None) -> str:
        """Write a value, if nobody has written it since.

        Args:
            key: Slash-separated.
            content: The new value.
            unchanged: Version of the value that this one replaces; None: there must be none.

        Returns:
            The new value's version.

        Raises:
            LedgerConflict: The present value is another one.
        """

    @abstractmethod
    def remove(self, key: str) -> None:
        """Take a value out; nothing happens where there is none."""

    @abstractmethod
    def keys(self, prefix: str) -> list[str]:
        """All keys that begin with `prefix`, which ends in a slash, sorted."""

    @abstractmethod
    def where(self, key: str) -> str:
        """Path or URI of a value, for people."""


def product_key(product: str, *parts: str) -> str:
    """Key of what belongs to a product."""
    return "/".join(["products", product, *parts])


def products(ledger: Ledger) -> list[str]:
    """Names of all products that a ledger knows, sorted."""
    return sorted({key.split("/")[1] for key in ledger.keys("products/")})


def run_key(run_id: str, *parts: str) -> str:
    """Key of what belongs to a run."""
    return "/".join(["runs", run_id, *parts])


def read_json(ledger: Ledger, key: str) -> Any | None:
    """The JSON value under `key`, or None.

    Raises:
        DamagedArtefact: It is not JSON.
    """
    value = ledger.read(key)
    return None if value is None else parse_json(value.content, ledger.where(key))


def parse_json(content: bytes, where: str) -> Any:
    """Parse a value.

    Raises:
        DamagedArtefact: It is not JSON; says where it stands.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedArtefact(
            f"{where} is damaged: {type(error).__name__}. Restore it from a backup, or delete it: artefacts are "
            "untouched and are found again by what they were made of."
        ) from None


def dump_json(value: Any) -> bytes:
    """The bytes of a JSON value, for people to read too."""
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def update(ledger: Ledger, key: str, change: Callable[[bytes | None], bytes | None]) -> bytes | None:
    """Change a value by reading it, deciding, and writing if nobody else wrote meanwhile; else again.

    Args:
        ledger: The ledger.
        key: The value's.
        change: From the present value, None if there is none, to the new one; None: it stays as it is. Called once
            for each try, so it must have no effect of its own.

    Returns:
        The value that stands now.

    Raises:
        LedgerConflict: So many others wrote that none of `TRIES` tries came through.
    """
    for number in range(TRIES):
        present = ledger.read(key)
        content = present.content if present else None
        new = change(content)
        if new is None or new == content:
            return content
        try:
            ledger.write(key, new, present.version if present else None)
        except LedgerConflict:
            time.sleep(random.uniform(0, _PAUSE_S * (number + 1)))  # noqa: S311 (no secret)
        else:
            return new
    raise LedgerConflict(f"{ledger.where(key)} is written by so many others that it could not be changed.")


def update_json(ledger: Ledger, key: str, change: Callable[[Any | None], Any | None]) -> Any | None:
    """`update` for JSON values."""

    def changed(content: bytes | None) -> bytes | None:
        value = change(None if content is None else parse_json(content, ledger.where(key)))
        return None if value is None else dump_json(value)

    content = update(ledger, key, changed)
    return None if content is None else parse_json(content, ledger.where(key))
