"""What the recipe's policies make of personal data and secrets in texts: counted, redacted, or their rows refused."""

from collections import Counter
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from phi3_assets.data.judge.sensitive import find_personal, find_secrets, maybe_personal, maybe_secret, redact


class Policies(Protocol):
    """The recipe's fields; see there."""

    @property
    def personal_data(self) -> str:
        """report, redact, quarantine or block."""

    @property
    def secrets(self) -> str:
        """report, redact, quarantine or block."""


@dataclass
class Judged:
    """Texts after the policies.

    Attributes:
        texts: The texts as they may be kept.
        plain: The texts with all of it redacted, whatever the policies say.
        changed: Whether `texts` are others than came.
        bad: Rows that the policies refuse, with the reason code.
        personal_data: Findings by kind.
        secrets: Findings by kind.
        rows_with_personal_data: Rows that hold any.
        rows_with_secrets: Rows that hold any.
    """

    texts: pa.Array
    plain: pa.Array
    changed: bool = False
    bad: dict[int, str] = field(default_factory=dict)
    personal_data: Counter[str] = field(default_factory=Counter)
    secrets: Counter[str] = field(default_factory=Counter)
    rows_with_personal_data: int = 0
    rows_with_secrets: int = 0


def apply_policies(
    texts: pa.Array, turns: NDArray[np.int64], policies: Policies | None, ignored: Container[int] = ()
) -> Judged:
    """Look for personal data and secrets in conversations of `turns` messages each.

    Args:
        texts: Their messages, end to end.
        turns: Messages of each row.
        policies: What becomes of findings; None: nothing.
        ignored: Rows that are not looked at.
    """
    judged = Judged(texts, texts)
    if not len(texts):
        return judged
    personally, secretly = maybe_personal(texts), maybe_secret(texts)
    places = np.flatnonzero(personally | secretly)
    if not len(places):
        return judged
    row_of = np.repeat(np.arange(len(turns)), turns)
    kept: dict[int, str] = {}
    plain: dict[int, str] = {}
    with_personal, with_secrets = set(), set()
    for i in places:
        row = int(row_of[i])
        if row in ignored:
            continue
        text = texts[int(i)].as_py()
        secrets = find_secrets(text) if secretly[i] else []
        personal = find_personal(text) if personally[i] else []
        if secrets:
            judged.secrets.update(finding.kind for finding in secrets)
            with_secrets.add(row)
        if personal:
            judged.personal_data.update(finding.kind for finding in personal)
            with_personal.add(row)
        if secrets or personal:
            plain[int(i)] = redact(text, secrets + personal)
        if policies is not None:
            hidden = secrets * (policies.secrets == "redact") + personal * (policies.personal_data == "redact")
            if hidden:
                kept[int(i)] = redact(text, hidden)
    judged.rows_with_personal_data, judged.rows_with_secrets = len(with_personal), len(with_secrets)
    judged.texts, judged.plain, judged.changed = _replaced(texts, kept), _replaced(texts, plain), bool(kept)
    if policies is not None:
        for rows, policy, reason in (
            (with_secrets, policies.secrets, "secret"),
            (with_personal, policies.personal_data, "personal_data"),
        ):
            if policy in ("quarantine", "block"):
                for row in sorted(rows):
                    judged.bad.setdefault(row, reason)
    return judged


def _replaced(texts: pa.Array, others: dict[int, str]) -> pa.Array:
    if not others:
        return texts
    contents = texts.to_pylist()
    for place, text in others.items():
        contents[place] = text
    return pa.array(contents, pa.string())
