"""The gate: every seeded fault is refused with the right sentence, by the real asset checks where they judge it."""

import copy
import dataclasses
import math
import random
import re

import pytest

from phi3_assets.evaluation import VARIANTS, against_champion, fitness, metrics
from phi3_assets.evaluation.against_champion import judge_against
from phi3_assets.evaluation.findings import Thresholds
from phi3_assets.evaluation.gate import decide
from phi3_assets.release.champion import Champion
from phi3_assets.resources.local_store import LocalArtifactStore
from phi3_assets_tests.evaluation.beside import beside, margins
from phi3_assets_tests.evaluation.gated import publish_report, through_the_checks

THRESHOLDS = Thresholds(
    metric="nll",
    alpha=0.05,
    min_items=20,
    learnt_answers=True,
    min_gain_kept=0.9,
    min_stop_rate=0.95,
    max_int4_loss=0.05,
    max_general_perplexity_ratio=4.0,
)
MEANS = {"base": 4.0, "adapter": 0.5, "merged": 0.5, "int4": 0.6}
PREFERENCE = {"base": 1.0, "adapter": 4.0, "merged": 4.0, "int4": 3.9}
RIGHT = {"base": 0.05, "adapter": 0.8, "merged": 0.8, "int4": 0.78}


def make(items=76, seed=0, means=MEANS, right=RIGHT, stops=1.0, preference=PREFERENCE):
    """An evaluation as the step writes it, with invented scores."""
    source = random.Random(seed)
    records = []
    for number in range(items):
        hardness = source.gauss(0, 0.2)
        luck = source.random()
        variants = {}
        for name in VARIANTS:
            match = float(luck < right[name])
            variants[name] = {
                "nll": round(max(0.01, means[name] + hardness + source.gauss(0, 0.05)), 6),
                "preference": round(preference[name] + source.gauss(0, 0.3), 6),
                "exact_match": match,
                "f1": match or 0.3,
                "rouge_l": match or 0.3,
                "chrf": match or 0.4,
                "json_valid": None,
                "repetition": 0.0,
                "stopped": number < stops * items,
                "tokens": 12,
                "answer": "x",
            }
        records.append(
            {
                "id": f"row-{number}",
                "question": f"q{number}",
                "reference": f"a{number}",
                "reference_tokens": source.randint(4, 30),
                "variants": variants,
            }
        )
    return summed(records)


def summed(records):
    quality = {name: metrics.summarise(records, name) for name in VARIANTS}
    for name in VARIANTS:
        quality[name]["general_nll"] = 3.2 if name == "base" else 3.6
    quality["int4"]["prompts_as_trained"] = 1.0
    scores = {
        "items": len(records),
        "test_set": "0" * 64,
        "variants": quality,
        "int4_gain_kept": metrics.int4_gain_kept(quality),
    }
    return scores, records


def against(ours, champion, **more):
    """The decision about a candidate beside a champion, each as `make` gives it."""
    scores, records = ours
    return decide(scores, records, THRESHOLDS, judge_against(beside(records, champion[1], **more), margins()))


def refusal(decision, rule):
    """The sentence of the one rule that refused."""
    refused = [finding for finding in decision.findings if not finding.passed]
    assert [finding.rule for finding in refused] == [rule]
    assert not decision.promote
    return refused[0].sentence


def test_a_good_first_model_is_promoted():
    decision = decide(*make(), THRESHOLDS)
    assert decision.fit
    assert decision.promote
    assert [finding.rule for finding in decision.findings] == list(fitness.RULES)


def test_a_better_model_replaces_the_champion():
    decision = against(make(), make(means={**MEANS, "int4": 1.0}))
    assert decision.promote
    assert "NLL is measurably better than the champion's: by 0.4" in decision.sentence
    asked = [finding.rule for finding in decision.findings]
    # What has to get better need not be kept as well, and no reference is JSON.
    assert asked == [
        *fitness.RULES,
        *(rule for rule in against_champion.RULES if rule not in ("nll_is_kept", "json_valid_is_kept")),
    ]


def test_the_champion_itself_stays():
    sentence = refusal(against(make(), make()), "better_than_champion")
    assert "NLL is not measurably better than the champion's" in sentence


def test_the_decision_can_be_written_down():
    decision = decide(*make(), THRESHOLDS).to_dict()
    assert decision["promote"] is True
    assert {"rule", "passed", "sentence", "numbers"} == set(decision["findings"][0])


def test_an_adapter_that_learnt_nothing_is_refused():
    """As when answers were shuffled: no gain, and nothing for int4 to keep."""
    decision = decide(*make(means=dict.fromkeys(VARIANTS, 4.0), right=dict.fromkeys(VARIANTS, 0.05)), THRESHOLDS)
    refused = {finding.rule for finding in decision.findings if not finding.passed}
    assert "int4_is_measurably_better" in refused
    assert "Not fit for release: The held-out answers are not likelier than to base" in decision.sentence


def test_an_adapter_that_learnt_the_style_alone_is_refused():
    """As when questions and answers were shuffled: likelier answers, but any answer to any question."""
    sentence = refusal(decide(*make(preference={**PREFERENCE, "int4": 0.2}), THRESHOLDS), "answers_were_learnt")
    assert "not measurably more than base" in sentence
    assert "may not belong together" in sentence


def test_a_file_whose_answers_were_shuffled_is_named():
    """Among three times as many rows that were learnt it did not show, and a first model has no champion to fail by."""
    scores, records = make()
    for number, record in enumerate(records):
        record["source"] = "bad.csv" if number % 4 == 0 else "good.csv"
    assert decide(scores, records, THRESHOLDS).fit
    for record in records[::4]:
        record["variants"]["int4"]["preference"] = 0.3 if record["id"] in ("row-0", "row-4", "row-8") else -0.1
    sentence = refusal(decide(scores, records, THRESHOLDS), "answers_were_learnt")
    assert "source bad.csv (19 items, by -0.037 nats per token)" in sentence
    assert "good.csv" not in sentence


def test_one_answer_to_everything_cannot_be_judged():
    scores, records = make()
    for record in records:
        record["variants"]["int4"]["preference"] = None
    assert "All test answers are the same" in refusal(decide(scores, records, THRESHOLDS), "answers_were_learnt")


def test_a_broken_int4_is_refused():
    """As with a damaged embedding: merged is good, int4 is worse than base."""
    decision = decide(*make(means={**MEANS, "int4": 9.0}, right={**RIGHT, "int4": 0.0}), THRESHOLDS)
    refused = {finding.rule for finding in decision.findings if not finding.passed}
    assert refused == {
        "every_variant_beats_base",
        "int4_is_measurably_better",
        "int4_keeps_the_gain",
        "int4_answers_like_merged",
    }
    assert not decision.fit


def test_int4_that_lost_too_much_is_refused():
    sentence = refusal(decide(*make(means={**MEANS, "int4": 1.2}), THRESHOLDS), "int4_keeps_the_gain")
    assert re.match(r"int4 keeps (79|80)\.\d%", sentence)
    assert "less than the 90.0% that is needed" in sentence


def test_five_items_are_too_few():
    assert "5 items, a decision needs at least 20" in refusal(
        decide(*make(items=5), THRESHOLDS), "test_set_is_large_enough"
    )


def test_a_cap_on_items_is_said_and_what_counts_is_what_was_asked():
    scores, records = make(items=30)
    scores["test_set_items"] = 5000
    (enough,) = [one for one in decide(scores, records, THRESHOLDS).findings if one.rule == "test_set_is_large_enough"]
    assert enough.sentence == "The test set has 5000 items, of which 30 are asked; at least 20 are needed."


def test_learnt_answers_are_only_asked_for_where_the_recipe_does():
    relaxed = dataclasses.replace(THRESHOLDS, learnt_answers=False)
    assert decide(*make(preference={**PREFERENCE, "int4": 0.2}), relaxed).fit


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "0.5"])
def test_a_metric_that_is_no_number_is_refused(value):
    scores, records = make()
    scores = copy.deepcopy(scores)
    scores["variants"]["merged"]["f1"] = value
    assert f"f1 of merged is {value}, not a number" in refusal(
        decide(scores, records, THRESHOLDS), "every_score_is_there"
    )


def test_a_missing_item_score_is_refused():
    scores, records = make()
    del records[3]["variants"]["adapter"]["nll"]
    assert "nll of adapter for item row-3 is missing" in refusal(
        decide(scores, records, THRESHOLDS), "every_score_is_there"
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_missing_variant_is_refused(variant):
    scores, records = make()
    del scores["variants"][variant]
    assert f"variant {variant} was not scored" in refusal(decide(scores, records, THRESHOLDS), "every_score_is_there")


def test_answers_that_do_not_end_are_refused():
    sentence = refusal(decide(*make(stops=0.8), THRESHOLDS), "answers_end_by_themselves")
    assert sentence == "80.3% of int4's answers end by themselves, but at least 95.0% must."


def test_another_prompt_on_the_device_is_refused():
    scores, records = make()
    scores["variants"]["int4"]["prompts_as_trained"] = 0.5
    assert "only 50.0% of the prompts" in refusal(decide(scores, records, THRESHOLDS), "devices_ask_as_trained")


def wrecked():
    scores, records = make()
    scores["variants"]["int4"]["general_nll"] = 8.0
    return scores, records


def test_a_model_that_forgot_its_language_is_refused():
    sentence = refusal(decide(*wrecked(), THRESHOLDS), "general_language_is_kept")
    assert sentence.startswith("int4's NLL of general text is 8.000, +4.800 nats from base's 3.200: 122 times")


def test_forgetting_is_judged_alike_whatever_base_knew():
    """The rule was a ratio of NLLs: of a base with 3.5 it let perplexity grow from 34 to 200."""
    for base in (1.0, 3.5, 6.0):
        for nats, fit in ((1.3, True), (1.5, False)):
            scores, records = make()
            scores["variants"]["base"]["general_nll"] = base
            scores["variants"]["int4"]["general_nll"] = base + nats
            assert decide(scores, records, THRESHOLDS).fit is fit


def test_int4_that_kept_the_likelihood_and_lost_the_answers_is_refused():
    """Seen: 98 % of the gain kept, and 76 to 83 % of the answers that merged gives; no rule objected."""
    means = {**MEANS, "int4": 0.52}
    sentence = refusal(
        decide(*make(items=300, means=means, right={**RIGHT, "int4": 0.6}), THRESHOLDS), "int4_answers_like_merged"
    )
    assert re.search(r"Exact match -\d+\.\d points \(a loss of more than [\d.]+ points cannot be ruled out", sentence)
    assert "int4_algorithm gptq" in sentence


def test_better_likelihood_with_worse_answers_is_refused():
    champion = make(means={**MEANS, "int4": 1.0}, right={**RIGHT, "int4": 0.98})
    decision = against(make(right={**RIGHT, "int4": 0.5, "merged": 0.5}), champion)
    refused = {finding.rule: finding.sentence for finding in decision.findings if not finding.passed}
    assert "points worse than the champion" in refused["exact_match_is_kept"]
    assert not decision.promote


def changed(evaluation, **numbers):
    """The same evaluation with other item scores of int4; a function of the item's place gives each."""
    scores, records = copy.deepcopy(evaluation)
    for place, record in enumerate(records):
        record["variants"]["int4"] |= {name: value(place) for name, value in numbers.items()}
    return scores, records


WORSE = {
    "stop_rate_is_kept": {"stopped": lambda place: place % 10 > 0},
    "json_valid_is_kept": {"json_valid": lambda place: float(place % 3 > 0)},
}


@pytest.mark.parametrize("rule", WORSE)
def test_what_was_never_compared_is_compared(rule):
    """Stop rate and JSON of a candidate were held against fixed thresholds, and not against the champion's."""
    champion = changed(make(items=300, means={**MEANS, "int4": 1.0}), json_valid=lambda _: 1.0)
    worse = changed(changed(make(items=300), json_valid=lambda _: 1.0), **WORSE[rule])
    found = judge_against(beside(worse[1], champion[1]), margins())
    refused = [finding.rule for finding in found if not finding.passed]
    assert refused == [rule]


@pytest.mark.parametrize(
    ("numbers", "rule"),
    [
        ({"general_nll": 3.9}, "language_is_kept"),
        ({"bytes": 130_000_000}, "size_is_kept"),
        ({"tokens_per_s": 60.0}, "speed_is_kept"),
    ],
)
def test_what_a_release_costs_is_compared(numbers, rule):
    decision = against(make(), make(means={**MEANS, "int4": 1.0}), **numbers)
    assert "champion" in refusal(decision, rule)


def test_a_gain_that_is_too_small_to_matter_is_refused():
    """0.0120 to 0.0119 was promoted: every item a ten-thousandth of a nat better, which chance hardly brings."""
    champion = make()
    ours = changed(champion, nll=lambda place: champion[1][place]["variants"]["int4"]["nll"] - 0.0005)
    assert "at least 0.010 nats per token" in refusal(against(ours, champion, noise=0.0), "better_than_champion")


def test_a_test_set_of_five_items_or_of_one_group_compares_nothing():
    for records in (make(items=5)[1], [{**record, "group": "one"} for record in make()[1]]):
        found = judge_against(beside(records, records), margins())
        assert [(finding.rule, finding.passed) for finding in found] == [("scored_side_by_side", False)]


def test_power_is_told_beforehand():
    found = judge_against(beside(make()[1], make(seed=1)[1], known={"row-0"}), margins())[0]
    assert re.match(r"76 items in 76 groups, 75 of them new since the champion, were put to both", found.sentence)
    assert re.search(r"must differ by 0\.\d+ nats per token to be found better four times in five", found.sentence)


def test_a_fit_model_is_released_and_every_rule_is_a_check(tmp_path):
    outcome = through_the_checks(tmp_path, report_of(tmp_path, *make()))
    assert outcome.released
    assert list(outcome.checks) == list(fitness.RULES)
    assert all(one.blocking and one.description for one in outcome.checks.values())
    assert history_of(tmp_path) == []
    assert outcome.checks["int4_keeps_the_gain"].metadata["least"].value == 0.95


def without(variant):
    scores, records = make()
    del scores["variants"][variant]
    return scores, records


def with_nan():
    scores, records = make()
    records[7]["variants"]["int4"]["nll"] = math.nan
    return scores, records


FAULTS = {
    "five items": (make(items=5), "The test set has 5 items, a decision needs at least 20; add data."),
    "NaN": (with_nan(), "nll of int4 for item row-7 is nan, not a number; make eval_report anew."),
    "missing variant": (without("merged"), "variant merged was not scored; make eval_report anew."),
    "style alone": (
        make(preference={**PREFERENCE, "int4": 0.2}),
        "questions and answers of the training rows may not belong together.",
    ),
    "broken int4": (make(means={**MEANS, "int4": 9.0}), "int4 keeps -143.2% of the likelihood that fine-tuning gained"),
    "forgot": (wrecked(), "so it forgot too much: set replay_share"),
    "endless": (make(stops=0.8), "80.3% of int4's answers end by themselves, but at least 95.0% must."),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_unfit_model_is_held_back_by_the_checks(tmp_path, fault):
    evaluation, sentence = FAULTS[fault]
    report = report_of(tmp_path, *evaluation)
    outcome = through_the_checks(tmp_path, report)
    assert not outcome.released
    assert any(sentence in said for said in outcome.refused.values()), outcome.refused
    assert list(outcome.checks) == list(fitness.RULES)
    assert history_of(tmp_path) == []  # a check judges and writes nothing: the champion's history is not its own


def test_thresholds_are_the_recipe_s(tmp_path):
    report = report_of(tmp_path, *make(items=5))
    assert through_the_checks(tmp_path, report, gate_min_items=5).released


def report_of(home, scores, records):
    return publish_report(LocalArtifactStore(home=str(home)), scores, records)


def history_of(home):
    return Champion(LocalArtifactStore(home=str(home)).ledger, "operations-desk").history()


def test_one_test_item_is_too_few_and_no_traceback():
    decision = decide(*make(items=1), THRESHOLDS)
    assert not decision.promote
    assert "test_set_is_large_enough" in [finding.rule for finding in decision.findings if not finding.passed]
