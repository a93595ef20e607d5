"""Scores by model, questions and machine: what was scored here once is not scored again.

A model's scores on one test set are the same however often they are made, as long as the machine and the runtimes are
the same. So base is scored once and not at every retrain, and a champion once for each test set. Of another machine
nothing is taken: its digits differ.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from phi3_assets.core.machine import machine
from phi3_assets.core.manifest import MANIFEST, read_manifest
from phi3_assets.core.step import sha256_of
from phi3_assets.data.cache import DirectoryCache
from phi3_assets.evaluation.general import GeneralSuite
from phi3_assets.evaluation.items import Item, RawScore

ROOM = "scores"
"""Folder of them below a home's caches."""
FILE = "scores.json"


@dataclass(frozen=True)
class VariantScores:
    """What one variant did, apart from its speed.

    Attributes:
        raw: Scores in the order of the items.
        general: general_nll and general_right.
        prompts_as_trained: Share of prompts that the device's own tokenizer and template build as in training; None
            for variants that are only run here, on the tokens of the corpus.
    """

    raw: list[RawScore]
    general: dict[str, float]
    prompts_as_trained: float | None = None

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "VariantScores":
        """Inverse of `dataclasses.asdict`, through JSON."""
        raw = [RawScore(**{**one, "generated_ids": tuple(one["generated_ids"])}) for one in value["raw"]]
        return cls(**{**value, "raw": raw})


class KeptScores:
    """Scores, and speeds, that this machine knows."""

    def __init__(self, caches: Path, log: Callable[[str], None]) -> None:
        """`caches` is where a step's caches are; `log` is told of damaged entries."""
        self._cache = DirectoryCache(caches / ROOM, log)

    def get(self, key: str | None, make: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], bool]:
        """A JSON object by key, and whether it was known; with key None it is made and not kept."""
        if key is None:
            return make(), False
        known = self._cache.get(key)
        folder = known or self._cache.put(key, partial(_write, make))
        return json.loads((folder / FILE).read_text(encoding="utf-8")), known is not None

    def prune(self) -> None:
        """Remove what no run has used for a month."""
        self._cache.prune()


def _write(make: Callable[[], dict[str, Any]], folder: Path) -> None:
    (folder / FILE).write_text(json.dumps(make()), encoding="utf-8")


def scores_key(
    models: Sequence[Path], items: Sequence[Item], suite: GeneralSuite, max_new_tokens: int, made_with: object
) -> str | None:
    """All that the scores of a model depend on; None: a model's folder does not say what it holds.

    Args:
        models: Artefacts that it is made of: a model, or a model and its adapter.
        items: The questions, in the tokens of the model.
        suite: The general suite in the tokens of the model.
        max_new_tokens: Longest generated answer.
        made_with: Versions of code and libraries, as JSON.
    """
    if not all((folder / MANIFEST).is_file() for folder in models):
        return None
    asked = [[item.prompt_ids, item.answer_ids, item.other_ids, item.prompt_messages] for item in items]
    return sha256_of(
        [
            [read_manifest(folder).digest for folder in models],
            asked,
            [asdict(passage) for passage in suite.passages],
            max_new_tokens,
            machine(),
            made_with,
        ]
    )
