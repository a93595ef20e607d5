"""The answer metrics on cases worked out by hand."""

import math

import pytest

from phi3_assets.core.errors import UserError
from phi3_assets.evaluation.items import RawScore
from phi3_assets.evaluation.metrics import int4_gain_kept, judge, judge_answer, repetition, summarise


def test_exact_match_forgives_case_punctuation_articles_and_space():
    found = judge_answer("The  answer, IS forty-two!", "answer is fortytwo")
    assert found["exact_match"] == 1
    assert judge_answer("answer is 43", "answer is 42")["exact_match"] == 0


def test_f1_is_harmonic_mean_over_words():
    # two of three words of the answer, two of four of the reference
    assert judge_answer("red green grey", "red green blue black")["f1"] == pytest.approx(2 * 2 / (3 + 4), abs=1e-5)


def test_rouge_l_needs_order_and_f1_does_not():
    found = judge_answer("green red", "red green")
    assert found["f1"] == 1
    assert found["rouge_l"] == 0.5


def test_chrf_sees_a_common_stem():
    assert judge_answer("restarting", "restarted")["chrf"] > 0.4
    assert judge_answer("restarting", "restarted")["f1"] == 0


@pytest.mark.parametrize("answer", ["", "...", "<script>", "🦀 ünï", "a" * 3000])
def test_any_answer_has_numbers(answer):
    for name, value in judge_answer(answer, "Paris.").items():
        assert name == "json_valid" or 0 <= value <= 1, name


def test_json_counts_only_where_it_is_wanted():
    assert judge_answer('{"a": 1}', '{"b": 2}')["json_valid"] == 1
    assert judge_answer("a is 1", '{"b": 2}')["json_valid"] == 0
    assert judge_answer('{"a": 1}', "Paris")["json_valid"] is None
    assert judge_answer("42", "42")["json_valid"] is None


def test_repetition():
    assert repetition([1, 2, 3, 4, 5, 6]) == 0
    assert repetition([7] * 10) == pytest.approx(6 / 7, abs=1e-6)
    assert repetition([1, 2]) == 0


def record(number, reference, tokens=4):
    return {"id": f"row-{number}", "reference": reference, "reference_tokens": tokens, "variants": {}}


def test_summary_weighs_likelihood_by_token_and_the_rest_by_item():
    records = [record(0, "yes", 1), record(1, '{"a": 1}', 3)]
    records[0]["variants"]["int4"] = judge("int4", records[0], RawScore(4.0, 6.0, (5,), True), "yes")
    records[1]["variants"]["int4"] = judge("int4", records[1], RawScore(2.0, 3.0, (5,) * 8, False), "no")
    found = summarise(records, "int4")
    assert found["nll"] == 2.5
    assert found["perplexity"] == pytest.approx(math.exp(2.5), abs=1e-3)
    assert found["exact_match"] == 0.5
    assert found["preference"] == 1.5
    assert found["stop_rate"] == 0.5
    assert found["json_valid"] == 0
    assert found["answer_tokens"] == 4.5


@pytest.mark.parametrize("nll", [math.nan, math.inf])
def test_a_likelihood_that_is_no_number_is_refused_by_name(nll):
    with pytest.raises(UserError, match="Variant merged gives item row-3 a likelihood"):
        judge("merged", record(3, "x"), RawScore(nll, None, (), True), "x")


def test_share_of_the_gain_that_int4_keeps():
    def of(base, merged, int4):
        return int4_gain_kept({"base": {"nll": base}, "merged": {"nll": merged}, "int4": {"nll": int4}})

    assert of(4.0, 1.0, 1.3) == 0.9
    assert of(4.0, 1.0, 5.0) < 0
    assert of(1.0, 1.0, 1.0) is None
    assert of(1.0, 2.0, 1.0) is None
