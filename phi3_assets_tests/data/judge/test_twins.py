"""Training rows that ask what a test row asks but for a word; and other facts, which are none, however alike."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from phi3_assets.data.fingerprints import normalise
from phi3_assets.data.judge.twins import Block, find_twins
from phi3_assets.data.judge.words import hashed
from phi3_assets.sample.make_sample import rows
from phi3_assets_tests.data.running import Run, write_sample


def near(tested: list[str], trained: list[str]) -> dict[str, str]:
    """Training question to the test question that it resembles."""
    questions = [*tested, *trained]
    texts = normalise(pa.array(questions, pa.string()))
    side = np.arange(len(questions)) < len(tested)
    nothing = np.zeros(len(questions), bool)
    blocks = [Block(len(questions), lambda: hashed(texts))]
    found = find_twins(blocks, side, nothing, lambda rows: {row: texts[row].as_py() for row in rows})
    return {questions[row]: questions[other] for row, other in found.items()}


SAME = [
    ("How do I reset my password?", "How do I reset my password now?"),
    ("How do I reset my password?", "How do I reset my router password?"),
    ("How do I reset my password?", "Please tell me how do I reset the password"),
    ("What does code 403 mean?", "What exactly does the code 403 mean?"),
    ("What does code 403 mean?", "What does error code 403 mean?"),
    ("Where are the payroll files stored?", "Where is the payroll file stored?"),
    ("How do I restart the web service?", "How do I restart the web servcie?"),
]
OTHER = [
    ("What does code 403 mean?", "What does code 404 mean?"),
    ("What does code 403 mean?", "What does code 403 mean in version 2?"),
    ("How do I enable the cache of a host?", "How do I disable the cache of a host?"),
    ("How do I mount a disk on Linux?", "How do I umount a disk on Linux?"),
    ("How do I upload a file to it?", "How do I unload a file to it?"),
    ("May I delete old log files?", "May I not delete old log files?"),
    ("How do I log in with a password?", "How do I log in without a password?"),
    ("How do I convert a PDF to Word?", "How do I convert Word to a PDF?"),
    ("What is DNS?", "What is reverse DNS?"),
    ("What is that?", "What was it?"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_a_word_more_or_less_is_the_same_question(one, other):
    assert near([one], [other]) == {other: one}
    assert near([other], [one]) == {one: other}


@pytest.mark.parametrize(("one", "other"), OTHER[:-1])
def test_another_fact_is_another_question(one, other):
    assert near([one], [other]) == near([other], [one]) == {}


def test_the_samples_families_are_other_questions():
    """510 questions, all alike but for a code: however they are split, none is taken out of training."""
    questions = [question for question, _ in rows()]
    for start in range(3):
        assert near(questions[start::3], [q for i, q in enumerate(questions) if i % 3 != start]) == {}


def test_twins_are_found_among_many_of_one_family():
    questions = [f"What does HTTP status {i} mean?" for i in range(3000)]
    twins = [f"What does HTTP status {i} mean here?" for i in range(3000)]
    assert near(questions, twins) == dict(zip(twins, questions, strict=True))


def test_a_one_word_longer_twin_is_not_trained_on_whatever_it_answers(tmp_path: Path) -> None:
    """55 of 59 test questions had a one-word-longer twin in training with another answer, and nothing was said."""
    run = Run(tmp_path)
    write_sample(run.data, 500)
    run.ingest()
    tested = [r["messages"][0]["content"] for r in run.records() if r["split"] == "test"]
    before = sum(r["split"] == "train" for r in run.records())
    twins = [f"{question.rstrip('?.')} here?" for question in tested]
    lines = [json.dumps({"Question": twin, "Best Answer": f"Other words {i}."}) for i, twin in enumerate(twins)]
    (run.data / "twins.jsonl").write_text("\n".join(lines))
    run.freeze()
    metrics = run.ingest()
    trained = {r["messages"][0]["content"] for r in run.records() if r["split"] == "train"}
    assert not trained & set(twins)
    assert metrics["leaked_rows_removed"] > 0.7 * len(twins)
    assert len(trained) == before
