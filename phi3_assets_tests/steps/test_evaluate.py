"""The evaluate step on a tiny chain: what it writes, that it repeats itself exactly, and what it refuses."""

import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from phi3_assets.core import memory
from phi3_assets.core.errors import UserError
from phi3_assets.core.forecast import TOLERANCE
from phi3_assets.core.recipe import fields_of
from phi3_assets.evaluation import VARIANTS
from phi3_assets.evaluation.statistics import COMPARED, PAIRS
from phi3_assets.steps import EVAL_REPORT
from phi3_assets.steps.evaluate import evaluate_variants
from phi3_assets_tests.evaluation.tiny import ROWS, write_corpus

pytest_plugins = ["phi3_assets_tests.evaluation.tiny"]

QUALITY = {
    "nll",
    "perplexity",
    "exact_match",
    "f1",
    "preference",
    "rouge_l",
    "chrf",
    "repetition",
    "stop_rate",
    "answer_tokens",
    "general_nll",
    "general_right",
}


@pytest.fixture(scope="module")
def evaluated(context_for):
    """One evaluation: its context, its metrics and what it logged."""
    lines, fractions = [], []
    ctx = context_for(log=lines.append, progress=lambda **numbers: fractions.append(numbers["fraction"]))
    return ctx, evaluate_variants(ctx), lines, fractions


def test_every_variant_is_scored_on_every_item(evaluated):
    ctx, metrics, _, fractions = evaluated
    scores = json.loads((ctx.output / "scores.json").read_text())
    records = [json.loads(line) for line in (ctx.output / "items.jsonl").read_text().splitlines()]
    assert list(scores["variants"]) == list(VARIANTS)
    assert scores["items"] == metrics["items"] == len(records) == len(ROWS)
    for record in records:
        assert list(record["variants"]) == list(VARIANTS)
    for name in VARIANTS:
        extra = {"bytes", "prompts_as_trained"} if name == "int4" else {"bytes"}
        assert set(scores["variants"][name]) == QUALITY | extra
        assert metrics["variants"][name].items() > scores["variants"][name].items()
        assert metrics["variants"][name]["tokens_per_s"] > 0
    assert scores["variants"]["int4"]["prompts_as_trained"] == 1
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def test_summary_follows_from_items(evaluated):
    ctx, metrics, _, _ = evaluated
    records = [json.loads(line) for line in (ctx.output / "items.jsonl").read_text().splitlines()]
    tokens = sum(record["reference_tokens"] for record in records)
    for name in VARIANTS:
        nll = sum(record["variants"][name]["nll"] * record["reference_tokens"] for record in records) / tokens
        assert metrics["variants"][name]["nll"] == pytest.approx(nll, abs=1e-6)
    base, merged, int4 = (metrics["variants"][name]["nll"] for name in ("base", "merged", "int4"))
    if base > merged:
        assert metrics["int4_gain_kept"] == pytest.approx((base - int4) / (base - merged), abs=1e-3)


def test_intervals_hold_the_numbers_and_comparisons_are_complete(evaluated):
    scores = json.loads((evaluated[0].output / "scores.json").read_text())
    for name in VARIANTS:
        for metric, (low, high) in scores["intervals"][name].items():
            assert low <= scores["variants"][name][metric] <= high
    assert len(scores["comparisons"]) == len(PAIRS) * len(COMPARED)
    against = next(one for one in scores["comparisons"] if one["candidate"] == "int4" and one["metric"] == "nll")
    variants = scores["variants"]
    assert against["difference"] == pytest.approx(variants["int4"]["nll"] - variants["base"]["nll"], abs=1e-5)


def test_adapter_and_merged_agree_and_differ_from_base(evaluated):
    _, metrics, _, _ = evaluated
    variants = metrics["variants"]
    assert variants["adapter"]["nll"] == pytest.approx(variants["merged"]["nll"], abs=1e-4)
    assert abs(variants["adapter"]["nll"] - variants["base"]["nll"]) > 0.01


def test_a_second_evaluation_gives_the_same_bytes(evaluated, context_for):
    ctx, _, _, _ = evaluated
    again = context_for()
    evaluate_variants(again)
    for name in ("scores.json", "items.jsonl", "scores.png"):
        assert (again.output / name).read_bytes() == (ctx.output / name).read_bytes(), name


def test_no_text_of_the_user_is_logged(evaluated):
    _, _, lines, _ = evaluated
    assert sum(line.startswith("Estimate: ") for line in lines) == 3  # int4 runs in a process of its own
    for question, answer in ROWS:
        assert not any(question in line or answer in line for line in lines if len(answer) > 3)


def test_plot_is_small_enough_for_the_ui(evaluated):
    png = (evaluated[0].output / "scores.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert len(png) < 150_000


class Page(HTMLParser):
    """Collects open tags and everything that would be fetched."""

    VOID = ("meta", "link", "img", "br", "hr", "path", "use", "rect", "image")

    def __init__(self):
        super().__init__()
        self.open, self.fetched, self.scripts, self.text = [], [], 0, ""

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script"
        self.fetched += [
            value for name, value in attrs if name in ("src", "href", "xlink:href") and not value.startswith("#")
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_report_is_self_contained_and_escapes_what_users_write(evaluated):
    text = (evaluated[0].output / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert not page.open
    assert page.scripts == 0
    assert not page.fetched
    assert not re.search(r"url\((?!['\"]?#)", text)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "Never & always <b>escape</b>." in page.text
    for label in ("base", "base + adapter", "merged", "int4 (ONNX)"):
        assert label in page.text


def test_a_cap_asks_the_same_few_and_says_so(context_for, evaluated):
    lines = []
    ctx = context_for(log=lines.append, test_items=3)
    assert evaluate_variants(ctx)["items"] == 3
    assert f"Asked are 3 of the test set's {len(ROWS)} items (test_items), chosen by a hash" in lines
    assert f"The test set has {len(ROWS)} items; asked are the 3" in (ctx.output / "report.html").read_text()
    every, few = (
        {line["id"] for line in map(json.loads, (one.output / "items.jsonl").read_text().splitlines())}
        for one in (evaluated[0], ctx)
    )
    assert few < every


def test_memory_is_forecast(evaluated):
    """Python and libraries at this size; of a real one `python -m benchmarks rehearsal` tells."""
    peak, forecast = (evaluated[1][name] for name in ("peak_memory_bytes", "estimated_memory_bytes"))
    assert peak / TOLERANCE <= forecast <= peak * TOLERANCE


def test_too_little_memory_is_refused_beforehand(context_for, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: -memory.held_bytes())
    with pytest.raises(UserError, match=r"Evaluating base needs about .* are available. Run the step on a machine"):
        evaluate_variants(context_for())


def test_empty_test_set_is_refused(context_for, chain, tmp_path):
    (tmp_path / "test.jsonl").write_text("")
    with pytest.raises(UserError, match="test set is empty"):
        evaluate_variants(context_for(formatted_corpus=tmp_path))


def test_broken_weights_are_refused_by_name(context_for, chain, tmp_path):
    from safetensors.torch import load_file, save_file

    merged = shutil.copytree(chain["merged_model"], tmp_path / "merged")
    weights = load_file(merged / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, merged / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="Variant merged gives item row-0 a likelihood of nan"):
        evaluate_variants(context_for(merged_model=merged))


def test_items_beyond_the_context_are_refused(context_for, chain, tmp_path):
    corpus = write_corpus(tmp_path / "corpus", chain["base_model"], [("word " * 300, "yes")])
    with pytest.raises(UserError, match=r"row-0 needs .* context is 256"):
        evaluate_variants(context_for(formatted_corpus=corpus))


def test_params_are_those_the_step_declares(context_for):
    assert set(context_for().params) == set(fields_of(EVAL_REPORT.name))
