"""Judges the records of all parts against each other: duplicates, conflicts, the split, leakage into the test set."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from phi3_assets.data.fingerprints import (
    PERMUTATIONS,
    Hashes,
    Lookup,
    among,
    positions,
    sketch,
)
from phi3_assets.data.judge.frozen_rows import FrozenRows
from phi3_assets.data.judge.near import Pair, find_near
from phi3_assets.data.judge.part_arrays import Parts
from phi3_assets.data.judge.part_store import BAND_ARRAYS, NO_ANSWER
from phi3_assets.data.judge.twins import Block, find_twins
from phi3_assets.data.judge.words import hashed
from phi3_assets.data.read.named_splits import TESTING, TRAINING, UNNAMED, VALIDATION

TRAIN, TEST, HELD_OUT = range(3)
"""Positions in `records.SPLITS`."""
KEPT, DUPLICATE, NEAR_DUPLICATE, LEAK, CONFLICT = range(5)
REASONS = ("", "duplicate", "near_duplicate", "near_duplicate_of_test", "conflicting_answer")


@dataclass(frozen=True)
class MergeSettings:
    """The recipe fields that the judgement depends on; see the recipe for what they mean."""

    test_set: str
    near_duplicates: str
    near_duplicate_threshold: float
    conflicts: str
    split_names: str


@dataclass
class Verdict:
    """What was decided, one value per record in the order of the parts.

    Attributes:
        reason: Position in `REASONS`.
        split: Position in `records.SPLITS`.
        near: Record to the record that it resembles; -1 - i stands for record i of the frozen test sets.
        conflicts: Lists of records that answer one question differently.
        named: Records of each side that files or arrays name; empty where the split is by hash alone.
    """

    reason: NDArray[np.uint8]
    split: NDArray[np.uint8]
    near: dict[int, int] = field(default_factory=dict)
    conflicts: list[list[int]] = field(default_factory=list)
    named: dict[str, int] = field(default_factory=dict)

    def counts(self) -> Counter[str]:
        """Records left out, by reason."""
        return Counter({REASONS[i]: int((self.reason == i).sum()) for i in range(1, len(REASONS))})


def judge(parts: Parts, frozen: FrozenRows, settings: MergeSettings) -> Verdict:
    """Decide for every record whether it is kept, and on which side it is."""
    ids = parts.load("id")
    verdict = Verdict(np.zeros(parts.rows, np.uint8), parts.load("side"))
    groups, asked = parts.load("group"), parts.load("asked")
    if settings.split_names == "honour":
        _split_by_names(verdict, parts.load("named"), groups)
    verdict.reason[_later_duplicates(ids, parts.repeated("id", ids), verdict.split)] = DUPLICATE
    _split(verdict.split, Keys(ids, groups, asked, parts.load("first")), frozen, settings.test_set == "grow")
    del ids
    absent = _absent(asked, frozen)
    repeated = parts.repeated("group", groups)
    _judge_conflicts(verdict, groups, repeated, parts.load("answer"), settings.conflicts == "quarantine")
    del groups
    places, questions, answers = frozen.questions(absent)
    _judge_questions(verdict, parts, asked, places, questions)
    del asked
    _judge_near(verdict, parts, places, list(zip(questions, answers, strict=True)), settings)
    return verdict


def _split_by_names(verdict: Verdict, named: NDArray[np.uint8], groups: Hashes) -> None:
    """Take over the sides that files or arrays name, where they name one to train on and one to test with.

    With a test set beside it, validation is for neither; without one it is the test set. Where files name tests, no
    other row of a test row's group is trained on.
    """
    counts = np.bincount(named, minlength=4)
    if not counts[TRAINING] or not (counts[TESTING] or counts[VALIDATION]):
        return
    verdict.split[named == TRAINING] = TRAIN
    verdict.split[named == TESTING] = TEST
    verdict.split[named == VALIDATION] = HELD_OUT if counts[TESTING] else TEST
    testing = np.unique(groups[(verdict.split == TEST) & (named != UNNAMED)])
    verdict.split[(verdict.split == TRAIN) & among(groups, testing)] = HELD_OUT
    verdict.named = {
        name: int(counts[side]) for name, side in (("train", TRAINING), ("validation", VALIDATION), ("test", TESTING))
    }


def _later_duplicates(ids: Hashes, repeated: NDArray[np.bool_], split: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Records whose content came up before; of several that of the test side is the one that stays.

    64 bits: among a million records one false alarm in 30 million datasets.
    """
    several = np.flatnonzero(repeated)
    order = several[np.lexsort((several, split[several] != TEST, ids[several]))]
    later: NDArray[np.int64] = order[1:][ids[order[1:]] == ids[order[:-1]]]
    return later


class Keys(NamedTuple):
    """By what records are known; see `part_store.ARRAYS`."""

    ids: Hashes
    groups: Hashes
    asked: Hashes
    first: Hashes


def _split(split: NDArray[np.uint8], keys: Keys, frozen: FrozenRows, grow: bool) -> None:
    """Once a test set is frozen, only its own records are tests.

    What was ever tested with is not trained on, and neither is a record of the same group: of a group that a frozen
    record has now, or that a record with its question has in the data, however groups were made at the time.
    """
    if not frozen.files:
        return
    asks_a_test = among(keys.asked, frozen.asked)
    if keys.first.any():
        asks_a_test |= among(keys.first, frozen.asked[frozen.asked != 0])
    asks_a_test[keys.asked == 0] = False  # a passage
    held = Lookup(np.concatenate([frozen.groups[frozen.groups != 0], keys.groups[asks_a_test]]))
    if frozen.has_present:
        split[asks_a_test if grow else split == TEST] = HELD_OUT
    split[among(keys.asked, frozen.gone)] = HELD_OUT
    others = np.flatnonzero((split != TEST) & ~asks_a_test)
    split[others[held.among(keys.groups[others])]] = HELD_OUT
    split[(split != TEST) & asks_a_test] = HELD_OUT
    split[among(keys.ids, frozen.ids[: frozen.present_rows])] = TEST


def _absent(asked: Hashes, frozen: FrozenRows) -> NDArray[np.int64]:
    """The frozen records that no record in the data asks, each once; the others are compared as records."""
    _, places = np.unique(frozen.asked, return_index=True)
    return np.sort(places[~among(frozen.asked[places], asked)])


def _judge_questions(
    verdict: Verdict, parts: Parts, asked: Hashes, places: NDArray[np.int64], questions: Sequence[str]
) -> None:
    """Take rows out of training that ask what a test row asks, or almost, whatever they answer.

    Args:
        verdict: Is added to.
        parts: The records.
        asked: What they ask.
        places: Frozen records that are not among them; they stand first.
        questions: Theirs.
    """
    count = len(places)

    def texts(rows: Sequence[int]) -> dict[int, str]:
        new = parts.questions([row - count for row in rows if row >= count])
        return {row: questions[row] for row in rows if row < count} | {row + count: text for row, text in new.items()}

    absent = hashed(pa.array(questions, pa.string()))
    found = find_twins(
        [Block(count, lambda: absent), *parts.hashed()],
        np.concatenate([np.ones(count, bool), verdict.split != TRAIN]),
        np.concatenate([np.zeros(count, bool), verdict.reason != KEPT]),
        texts,
    )
    # The very question, as another group has it: of too few words to be looked at above, or none that counts.
    tests = np.flatnonzero((verdict.split != TRAIN) & (verdict.reason == KEPT) & (asked != 0))
    train = np.flatnonzero((verdict.split == TRAIN) & (verdict.reason == KEPT))
    same = positions(asked[train], asked[tests])
    found |= {int(train[at]) + count: int(tests[same[at]]) + count for at in np.flatnonzero(same >= 0)}
    for row, like in found.items():
        verdict.near[row - count] = like - count if like >= count else -1 - int(places[like])
        verdict.reason[row - count] = LEAK


def _judge_conflicts(
    verdict: Verdict, groups: Hashes, repeated: NDArray[np.bool_], answers: Hashes, quarantine: bool
) -> None:
    """Find questions with more than one answer, punctuation and case aside."""
    rows = np.flatnonzero(repeated & (answers != NO_ANSWER) & (verdict.reason == KEPT))
    rows = rows[np.argsort(groups[rows], kind="stable")]
    for run in np.split(rows, np.flatnonzero(groups[rows[1:]] != groups[rows[:-1]]) + 1):
        if len(set(answers[run].tolist())) > 1:
            verdict.conflicts.append(run.tolist())
            if quarantine:
                verdict.reason[run[verdict.split[run] == TRAIN]] = CONFLICT


def _judge_near(
    verdict: Verdict, parts: Parts, places: NDArray[np.int64], fixed_pairs: Sequence[Pair], settings: MergeSettings
) -> None:
    """Compare the records with each other and with the frozen tests that are not among them, which stand first."""
    count = len(fixed_pairs)
    if not parts.rows:
        return
    fixed_sketches, fixed_bands = sketch(
        pa.array([question for question, _ in fixed_pairs], pa.string()),
        pa.array([answer for _, answer in fixed_pairs], pa.string()),
    )

    def sketches(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        result = np.zeros((len(rows), 2, PERMUTATIONS), np.uint8)
        old = rows < count
        result[old] = fixed_sketches[rows[old]]
        result[~old] = parts.sketches(rows[~old] - count)
        return result

    def texts(rows: Sequence[int]) -> dict[int, Pair]:
        found = {row: fixed_pairs[row] for row in rows if row < count}
        new = parts.texts([row - count for row in rows if row >= count])
        return found | {row + count: pair for row, pair in new.items()}

    def band(number: int) -> tuple[Hashes, NDArray[np.bool_]]:
        name = BAND_ARRAYS[number]
        hashes = np.concatenate([fixed_bands[number], parts.load(name)])
        return hashes, parts.repeated(name, hashes)

    found = find_near(
        band=band,
        sketches=sketches,
        texts=texts,
        on_test_side=np.concatenate([np.ones(count, bool), verdict.split != TRAIN]),
        ignored=np.concatenate([np.zeros(count, bool), verdict.reason != KEPT]),
        threshold=settings.near_duplicate_threshold,
    )
    for row, like in sorted(found.items()):
        record, other = row - count, like - count
        verdict.near[record] = other if other >= 0 else -1 - int(places[like])
        if other < 0 or verdict.split[other] != TRAIN:
            verdict.reason[record] = LEAK
        elif settings.near_duplicates == "quarantine":
            verdict.reason[record] = NEAR_DUPLICATE
