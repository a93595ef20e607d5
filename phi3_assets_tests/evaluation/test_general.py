"""The general suite: it is sound, and the scorers agree on it with the plainest reference there is."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from phi3_assets.evaluation import genai_scorer, torch_scorer
from phi3_assets.evaluation.general import SUITE, GeneralSuite, Passage, load_general
from phi3_assets.models import genai

pytest_plugins = ["phi3_assets_tests.evaluation.tiny"]


def test_the_suite_is_what_its_head_says():
    suite = yaml.safe_load(SUITE.read_text(encoding="utf-8"))
    assert len(set(suite["texts"])) == len(suite["texts"]) >= 20
    assert len({one["text"] for one in suite["questions"]}) == len(suite["questions"]) >= 40
    for one in suite["questions"]:
        assert set(one) == {"text", "right", "wrong"}, one
        assert len({one["right"], *one["wrong"]}) == 3, one


def test_the_task_for_lm_evaluation_harness_asks_the_same_questions():
    folder = Path(__file__).parents[2] / "docs" / "lm-eval"
    rows = runpy.run_path(str(folder / "phi3_general.py"))["load"]()["test"]
    assert len(rows) == len(yaml.safe_load(SUITE.read_text(encoding="utf-8"))["questions"])
    assert rows[0] == {"text": "The capital of France is", "choices": ["Paris", "Madrid", "Berlin"]}
    assert "custom_dataset: !function phi3_general.load" in (folder / "phi3_general.yaml").read_text()


def test_summary_by_hand():
    suite = GeneralSuite(
        texts=(Passage((1, 2, 3), 1), Passage((4, 5), 1)),
        questions=(
            (Passage((1, 2), 1), Passage((1, 3, 4), 1)),  # 1.0 against 1.5 a token: right
            (Passage((1, 2), 1), Passage((1, 3, 4), 1)),  # 1.0 against 0.5
        ),
    )
    assert len(suite.passages) == 6
    assert suite.summarise([4.0, 2.0, 1.0, 3.0, 1.0, 1.0]) == {"general_nll": 2.0, "general_right": 0.5}


def test_a_continuation_is_scored_from_where_it_begins():
    """SentencePiece turns a leading space into a token of its own; only the whole text tells where an answer starts."""
    words = {"▁The": 1, "▁sky": 2, "▁is": 3, "▁blue": 4}

    def tokenizer(text, add_special_tokens):
        return SimpleNamespace(input_ids=[words.get(f"▁{word}", 9) for word in text.split(" ")])

    question = load_general(tokenizer, 64).questions[0]
    assert [passage.start for passage in question] == [5, 5, 5]  # The capital of France is | Paris
    assert all(len(passage.ids) == 6 for passage in question)


@pytest.fixture(scope="module")
def suite(chain):
    from transformers import AutoTokenizer

    return load_general(AutoTokenizer.from_pretrained(chain["base_model"]), 64)


def test_texts_beyond_the_context_are_cut(suite):
    assert max(len(passage.ids) for passage in suite.texts) == 64


def test_losses_equal_those_of_one_passage_at_a_time(chain, suite):
    import torch

    model = torch_scorer.load_model(chain["merged_model"])
    passages = suite.passages
    found = torch_scorer.losses(model, passages)
    for passage, loss in list(zip(passages, found, strict=True))[::7]:
        ids = torch.tensor([passage.ids])
        with torch.inference_mode():
            logits = model(ids).logits[0, passage.start - 1 : -1]
        plain = torch.nn.functional.cross_entropy(logits, ids[0, passage.start :], reduction="sum").item()
        assert loss == pytest.approx(plain, rel=1e-4)
    exported = genai_scorer.losses(genai.load_model(chain["onnx_fp32_model"]), passages)
    assert exported == pytest.approx(found, rel=1e-3)
