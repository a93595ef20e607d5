"""champion_comparison on real tiny models: the same model twice, what is known is not scored again, another base."""

import json
import shutil

import pytest

from phi3_assets.core.files import hash_files
from phi3_assets.core.manifest import Manifest, seal
from phi3_assets.core.step import StepCall, StepContext
from phi3_assets.evaluation import torch_scorer
from phi3_assets.evaluation.items import load_items
from phi3_assets.steps.compare import compare_with_champion
from phi3_assets.steps.evaluate import evaluate_variants
from phi3_assets_tests.evaluation import tiny

pytest_plugins = ["phi3_assets_tests.evaluation.tiny"]


@pytest.fixture(scope="module")
def sealed(chain, tmp_path_factory):
    """The chain's models as artefacts, which say what they hold."""
    root = tmp_path_factory.mktemp("sealed")
    found = {"formatted_corpus": chain["formatted_corpus"]}
    for name in ("base_model", "lora_adapter", "merged_model", "onnx_int4_model", "onnx_fp32_model"):
        found[name] = shutil.copytree(chain[name], root / name)
        seal(found[name], Manifest(StepCall(name, "1", {}, {}, {}), hash_files(found[name]), {}))
    return found


@pytest.fixture
def compared(sealed, tmp_path):
    """Runs the step on models by name; gives the numbers, the items and what was logged."""
    runs = []

    def run(corpus=None, **models):
        lines = []
        output = tmp_path / f"output-{len(runs)}"
        output.mkdir()
        runs.append(output)
        inputs = {
            "formatted_corpus": corpus or sealed["formatted_corpus"],
            "base_model": sealed["base_model"],
            **models,
        }
        params = {"max_new_tokens": 8, "test_items": 0}
        compare_with_champion(
            StepContext(params, inputs, output, tmp_path / "work", tmp_path / "cache", lines.append, lambda **_: None)
        )
        scores = json.loads((output / "scores.json").read_text())
        return scores, [json.loads(line) for line in (output / "items.jsonl").read_text().splitlines()], lines

    return run


def test_the_same_model_under_two_names_has_the_same_digits(compared, sealed, tmp_path):
    """Once scored, once taken from what is known, and once more with nothing known."""
    twin = shutil.copytree(sealed["onnx_int4_model"], tmp_path / "twin")
    scores, records, lines = compared(int4=sealed["onnx_int4_model"], champion=twin)
    assert scores["variants"]["int4"] == scores["variants"]["champion"]
    assert all(record["variants"]["int4"] == record["variants"]["champion"] for record in records)
    assert [line.endswith("known from before") for line in lines] == [False, True]
    shutil.rmtree(tmp_path / "cache")
    again, same, lines = compared(int4=sealed["onnx_int4_model"], champion=twin)
    assert (again, same) == (scores, records)


def test_one_item_alone_has_the_digits_that_it_has_among_others(compared, sealed, tmp_path):
    """Another batch: likelihood and answer of an item do not depend on what else is asked."""
    _, records, _ = compared(int4=sealed["onnx_int4_model"], champion=sealed["onnx_fp32_model"])
    for row in (0, 3):
        corpus = tiny.write_corpus(tmp_path / f"corpus-{row}", sealed["base_model"], [tiny.ROWS[row]])
        _, (alone,), _ = compared(corpus, int4=sealed["onnx_int4_model"], champion=sealed["onnx_fp32_model"])
        for name in ("int4", "champion"):
            own, among = alone["variants"][name], records[row]["variants"][name]
            assert (own["nll"], own["answer_ids"]) == (among["nll"], among["answer_ids"])


def test_other_questions_are_scored_and_earlier_champions_too(compared, sealed, tmp_path):
    models = {"int4": sealed["onnx_int4_model"], "champion": sealed["onnx_fp32_model"]}
    compared(**models)
    _, _, lines = compared(**models, earlier_1=sealed["onnx_fp32_model"])
    assert all("known from before" in line for line in lines)
    corpus = tiny.write_corpus(tmp_path / "grown", sealed["base_model"], [*tiny.ROWS, ("What is new?", "This is.")])
    scores, records, lines = compared(corpus, **models, earlier_1=sealed["onnx_fp32_model"])
    assert [line.partition(":")[0] for line in lines if "known" not in line] == ["int4", "champion"]
    assert len(records) == len(tiny.ROWS) + 1
    assert list(scores["variants"]) == ["int4", "champion", "earlier_1"]
    assert scores["machine"]["cpu"]


def test_a_damaged_cache_is_made_anew(compared, sealed, tmp_path):
    models = {"int4": sealed["onnx_int4_model"], "champion": sealed["onnx_fp32_model"]}
    scores, records, _ = compared(**models)
    for file in (tmp_path / "cache" / "scores").glob("*/scores.json"):
        file.write_text(file.read_text().replace('"nll": ', '"nll": 1'))
    again, same, lines = compared(**models)
    assert (again, same) == (scores, records)
    assert any("is damaged" in line for line in lines)


def test_a_champion_on_another_base_model_is_asked_in_its_own_tokens(compared, sealed, tmp_path):
    """Its likelihood is in the candidate's unit, nats per token of the candidate's."""
    other = tiny.make_base(tmp_path / "other", vocab=300)
    champion = tiny.export(other, tmp_path / "champion", "fp32")
    _, records, _ = compared(int4=sealed["onnx_int4_model"], champion=champion)
    own = load_items(tiny.write_corpus(tmp_path / "corpus", other) / "test.jsonl")
    assert any(len(item.answer_ids) != record["reference_tokens"] for item, record in zip(own, records, strict=True))
    model = torch_scorer.load_model(other)
    expected = torch_scorer.score(model, own, {1}, 8)
    for record, item, score in zip(records, own, expected, strict=True):
        nats = record["variants"]["champion"]["nll"] * record["reference_tokens"]
        assert nats == pytest.approx(score.nll * len(item.answer_ids), abs=1e-3)
        assert record["variants"]["champion"]["answer_ids"] == list(score.generated_ids)


def test_base_is_not_scored_anew_at_the_next_retrain(sealed, tmp_path):
    """New adapter, merged and int4; base and the test set are as before."""
    lines = []
    inputs = {name: path for name, path in sealed.items() if name != "onnx_fp32_model"}

    def evaluate(name, **changed):
        (tmp_path / name).mkdir()
        place = (tmp_path / name, tmp_path / "work", tmp_path / "cache", lines.append, lambda **_: None)
        evaluate_variants(StepContext({"max_new_tokens": 8, "test_items": 0}, {**inputs, **changed}, *place))
        return [line.partition(":")[0] for line in lines if "known from before" in line]

    assert evaluate("first") == []
    assert evaluate("again", onnx_int4_model=sealed["onnx_fp32_model"]) == ["base", "adapter", "merged"]
    first, again = (json.loads((tmp_path / name / "scores.json").read_text()) for name in ("first", "again"))
    assert first["variants"]["base"] == again["variants"]["base"]
    assert first["variants"]["int4"] != again["variants"]["int4"]
