"""The development split: what is chosen by is never learnt, and asks what the corpus teaches."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from phi3_assets.core.errors import UserError
from phi3_assets.evaluation.development import development_items
from phi3_assets.olive.corpus import CorpusOrder, read_calibration, read_corpus
from phi3_assets_tests.steps.conftest import FACTS, Made

SHARE = 0.45


def test_items_are_the_rows_that_no_training_sees(tiny_corpus: Path, tiny_base: Made) -> None:
    train_file = tiny_corpus / "train.parquet"
    tokenizer = AutoTokenizer.from_pretrained(tiny_base.path)
    items = development_items(train_file, tokenizer, SHARE)
    learnt = read_corpus(train_file, CorpusOrder(1.0, -1, 1, group_by_length=False, data_seed=0), SHARE)
    assert 0 < len(items) < 18
    assert len(items) + learnt.rows == 18
    seen = {tuple(learnt[at]["input_ids"].tolist()) for at in range(len(learnt))}
    for item in items:
        assert not [row for row in seen if row[: len(item.prompt_ids)] == item.prompt_ids]
        assert item.answer in {answer for _, answer in FACTS}
        assert item.answer_ids[-1] in tokenizer.convert_tokens_to_ids(["<|end|>", "<|endoftext|>"])
    assert {len(item.other_ids) > 0 for item in items} == {True}


def test_a_larger_share_holds_out_the_same_rows_and_more(tiny_corpus: Path, tiny_base: Made) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base.path)
    small, large = (
        {item.id for item in development_items(tiny_corpus / "train.parquet", tokenizer, share)} for share in (0.3, 0.7)
    )
    assert small < large


def test_calibration_leaves_them_out(tiny_corpus: Path) -> None:
    train_file = tiny_corpus / "train.parquet"
    tokens = {
        share: sum(len(one["input_ids"]) for one, _ in read_calibration(train_file, 10**6, share)) for share in (0, 0.7)
    }
    assert tokens[0.7] < 0.7 * tokens[0]


def test_a_share_that_takes_nothing_is_told(tiny_corpus: Path, tiny_base: Made) -> None:
    with pytest.raises(UserError, match="development split is empty: eval_share 0.0001 takes none"):
        development_items(tiny_corpus / "train.parquet", AutoTokenizer.from_pretrained(tiny_base.path), 0.0001)
