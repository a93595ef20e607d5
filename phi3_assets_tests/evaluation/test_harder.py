"""Harder questions on a real tiny model, and how much of a test set is recall: what is asked, and what is refused."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from phi3_assets.core.errors import UserError
from phi3_assets.evaluation.harder import COLUMNS, load_harder, summarise_harder
from phi3_assets.evaluation.items import load_items
from phi3_assets.evaluation.recall import references_in_training
from phi3_assets.steps.evaluate import evaluate_variants
from phi3_assets.steps.scoring import load_tokenizer
from phi3_assets_tests.evaluation import tiny

pytest_plugins = ["phi3_assets_tests.evaluation.tiny"]
ROWS = [
    ("Which colour is not the sky's?", "Green.", "Blue, or grey when it rains.", "told apart", "desk.csv"),
    ("Who wrote <b>Hamlet</b>?", "Nobody here.", "Johann Wolfgang von Goethe wrote it.", "near miss", "desk.csv"),
    ("Of what is this?", "Of another dataset.", "Of this one.", "near miss", "other.csv"),
]


def write(folder, rows=ROWS, columns=COLUMNS):
    folder.mkdir()
    with (folder / "questions.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return folder


@pytest.fixture
def corpus(chain, tmp_path):
    """A corpus whose test items are of desk.csv, with a system message, and training rows that hold four answers."""
    folder = tiny.write_corpus(tmp_path / "corpus", chain["base_model"])
    lines = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]
    for line in lines:
        line |= {"source": "desk.csv", "messages": [{"role": "system", "content": "Be brief."}, *line["messages"]]}
    (folder / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "train.parquet").mkdir()
    labels = [[-100, -100, *line["answer_ids"]] for line in lines[:4]]
    labels.append([-100, *lines[4]["answer_ids"][:-1]])  # it goes on otherwise, or is cut off
    labels.append([-100, 7, *lines[5]["answer_ids"]])  # another answer that only ends like it
    pq.write_table(
        pa.table({"labels": pa.array(labels, pa.list_(pa.int32()))}), folder / "train.parquet" / "000000.parquet"
    )
    return folder


def test_how_many_references_stand_in_training_is_measured(corpus):
    items = load_items(corpus / "test.jsonl")
    assert references_in_training(corpus, items) == pytest.approx(4 / 7, abs=1e-6)
    assert references_in_training(corpus, items[4:]) == 0


def test_questions_about_the_dataset_are_asked_as_a_device_asks(corpus, chain, tmp_path):
    tokenizer = load_tokenizer(chain["base_model"])
    items = load_items(corpus / "test.jsonl")
    found = load_harder(write(tmp_path / "harder"), tokenizer, [1], items)
    assert [kind for kind, _ in found] == ["told apart", "near miss"]
    item = found[0][1]
    assert tokenizer.decode(item.prompt_ids) == (
        "<|system|>Be brief.<|end|><|user|>Which colour is not the sky's?<|end|><|assistant|>"
    )
    assert tokenizer.decode(item.answer_ids) == "Green.<|end|>"
    assert tokenizer.decode(item.other_ids) == "Blue, or grey when it rains.<|end|>"


@pytest.mark.parametrize(
    ("rows", "columns", "why"),
    [
        (ROWS, ("Question", "Answer", *COLUMNS[2:]), "has no column Best Answer"),
        ([("Q?", "", "w", "k", "a")], COLUMNS, "question 'Q\\?': Best Answer is empty"),
        ([("Q?", "r", "w")], COLUMNS, "question 'Q\\?': Kind, About is empty"),
    ],
)
def test_a_file_that_cannot_be_asked_is_refused(corpus, chain, tmp_path, rows, columns, why):
    folder = write(tmp_path / "harder", rows, columns)
    with pytest.raises(UserError, match=why):
        load_harder(folder, load_tokenizer(chain["base_model"]), [1], load_items(corpus / "test.jsonl"))


def test_a_file_in_another_encoding_is_refused(corpus, chain, tmp_path):
    (tmp_path / "questions.csv").write_bytes("Question\nQu\u00e9?\n".encode("latin-1"))
    with pytest.raises(UserError, match="is not UTF-8"):
        load_harder(tmp_path, load_tokenizer(chain["base_model"]), [1], load_items(corpus / "test.jsonl"))


def test_the_report_has_a_block_of_them_and_the_test_set_is_what_it_was(corpus, context_for, tmp_path):
    plain, asked = context_for(formatted_corpus=corpus), context_for(formatted_corpus=corpus)
    without = evaluate_variants(plain)
    asked.inputs["harder_questions"] = write(tmp_path / "harder")
    metrics = evaluate_variants(asked)
    assert (asked.output / "items.jsonl").read_bytes().count(b"\n") == metrics["items"] == without["items"] == 7
    assert metrics["test_set"] == without["test_set"]
    assert metrics["references_in_training"] == pytest.approx(4 / 7, abs=1e-6)
    assert "harder_preferred" not in without

    records = [json.loads(line) for line in (asked.output / "harder.jsonl").read_text().splitlines()]
    summary = json.loads((asked.output / "scores.json").read_text())["harder"]
    assert {kind: part["items"] for kind, part in summary.items()} == {"told apart": 1, "near miss": 1, "all": 2}
    preferred = [record["variants"]["int4"]["preference"] > 0 for record in records]
    assert metrics["harder_preferred"] == summary["all"]["variants"]["int4"]["preferred"] == sum(preferred) / 2
    page = (asked.output / "report.html").read_text()
    assert "57% of the reference answers stand word for word" in page
    assert '<h2 id="harder">' in page
    assert "Who wrote &lt;b&gt;Hamlet&lt;/b&gt;?" in page
    assert '<h2 id="harder">' not in (plain.output / "report.html").read_text()


def test_what_is_preferred_is_counted_by_kind():
    def record(kind, preference, right=0.0):
        numbers = {"preference": preference, "exact_match": right, "f1": right}
        return {"kind": kind, "variants": {"int4": numbers}}

    found = summarise_harder([record("a", 0.2, 1.0), record("a", -0.1), record("b", 0.0)], ["int4"])
    assert found["a"] == {"items": 2, "variants": {"int4": {"exact_match": 0.5, "f1": 0.5, "preferred": 0.5}}}
    assert found["b"]["variants"]["int4"]["preferred"] == 0.0  # as likely as each other is no preference
    assert found["all"]["items"] == 3
