"""Decisions about releases, in a home that was really made: recorded with why, and with what changed."""

import json
import re
import shutil
from pathlib import Path

import dagster as dg
import pytest

from phi3_assets.core.files import hash_files
from phi3_assets.core.manifest import Manifest, seal
from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.evaluation import metrics
from phi3_assets.ops.promotion import decide_champion
from phi3_assets.release.champion import Champion, ChampionChanged
from phi3_assets.resources.execution import Execution
from phi3_assets.resources.local_store import LocalArtifactStore
from phi3_assets.steps import STEPS
from phi3_assets_tests.evaluation.beside import beside
from phi3_assets_tests.evaluation.gated import publish, publish_report
from phi3_assets_tests.evaluation.test_gate import MEANS, RIGHT, make
from phi3_assets_tests.tiny_graph import TINY


def test_a_new_release_is_judged_by_the_checks_and_then_against_the_champion(copied_home, phi3_here):
    """Another recipe: first refused as not fit, then with other thresholds compared with the champion."""
    first = champion(copied_home).present()
    assert set(first.decision["made_of"]) == STEPS.keys()
    changed = [*TINY, "--set", "int4_block_size=64"]

    strict = phi3_here("run", *changed, "--set", "gate_min_items=20", home=copied_home, fails=True)
    assert re.search(r"FAILED: test_set_is_large_enough. The test set has \d+ items, a decision needs", strict)
    refused = re.search(
        r"The model of eval_report (\w{16}), product operations-desk, is not fit for release. The test set has \d+ "
        r"items, .* Page: http://127.0.0.1:8000/decision/operations-desk/(\1-not-fit.html)",
        strict,
    )
    assert refused, strict
    decisions = copied_home / "ledger" / "products" / "operations-desk" / "decisions"
    assert "Refused: not fit for release" in (decisions / refused[2]).read_text()
    assert len(list((copied_home / "gen-model" / "release_bundle").glob("*/manifest.json"))) == 1
    assert champion(copied_home).present() == first

    said = phi3_here("run", *changed, home=copied_home)
    promoted, last = champion(copied_home).history()
    assert promoted == first
    assert last.decision["sentence"] in said
    assert (first.decision["recipe"], last.decision["recipe"]) == ("tiny-test", "tiny-test, int4_block_size=64")
    page = (decisions / last.decision["page"]).read_text()
    assert "<td>int4_block_size</td><td>32</td><td>64</td>" in page
    assert re.search(r"(\d+) before, \1 now: 0 added, 0 removed", page)
    assert "not known" not in page
    links = [link for link in re.findall(r'href="([^"]+)"', page) if not link.startswith("#")]
    assert len(links) == 2
    for link in links:
        assert (decisions / link).exists(), link

    assert len(phi3_here("champion", "history", home=copied_home).splitlines()) == 2


def test_rows_on_a_new_subject_promote_the_model_that_learnt_them(copied_home, phi3_here):
    """The headline use failed: items that arrived after the freeze never counted against a champion.

    The champion is put the new questions too, by a step that runs once; the same run again scores nothing.
    """
    with (copied_home / "datasets" / "lamps.csv").open("w", encoding="utf-8") as file:
        file.write("Question,Best Answer\n")
        file.writelines(f"Which lamp is at door {n} of hall {n % 7}?,A red lamp hangs at {n}!\n" for n in range(60))
    grown = [*TINY, "--set", "test_set=grow", "--set", "test_share=0.3", "--set", "gate_max_perplexity_growth=1e9"]
    said = phi3_here("run", *grown, home=copied_home)
    assert "Step champion_comparison" in said
    _, second = champion(copied_home).history()
    assert second.action == "promote", second.sentence
    findings = {one["rule"]: one for one in second.decision["findings"]}
    assert findings["scored_side_by_side"]["numbers"]["new"] >= 12
    page = (copied_home / "ledger/products/operations-desk/decisions" / second.decision["page"]).read_text()
    for name in ("new items", "source lamps.csv"):
        assert re.search(rf"<td>{name}</td><td>\d+</td>", page), page
    comparison = second.decision["comparison"]["identity"]

    changed = [*grown, "--set", "int4_block_size=64", "--set", "gate_min_effect=5"]
    said = phi3_here("run", *changed, home=copied_home)
    refused = champion(copied_home).history()[-1]
    assert (refused.action, refused.decision["comparison"]["identity"] != comparison) == ("refuse", True)
    again = phi3_here("run", *changed, home=copied_home)
    assert "Step " not in again
    assert champion(copied_home).history()[-1] == refused


def champion(home) -> Champion:
    return Champion(LocalArtifactStore(home=str(home)).ledger, "operations-desk")


class Scored(Execution):
    """Makes comparisons from reports that were invented: each model's scores are those of its report."""

    def run_step(self, context, call, inputs, store):
        reports = {name: self._report(store, ref) for name, ref in inputs.items() if ref.kind == "onnx_int4_model"}
        side = beside(
            reports.pop("int4"),
            reports.pop("champion"),
            [reports[name] for name in sorted(reports)],
        )
        names = ["int4", "champion", *sorted(reports)]
        numbers = dict(zip(names, side.numbers.values(), strict=True))
        for name, known in zip(names, side.numbers, strict=True):
            numbers[name] |= metrics.summarise(side.records, known)
        staged = store.staging_path(call)
        staged.mkdir(parents=True)
        speeds = {name: {"tokens_per_s": one.pop("tokens_per_s")} for name, one in numbers.items()}
        lines = "".join(json.dumps(record).replace("earlier_0", names[-1]) + "\n" for record in side.records)
        (staged / "items.jsonl").write_text(lines)
        (staged / "scores.json").write_text(json.dumps({"variants": numbers}))
        (staged / "speed.json").write_text(json.dumps({"variants": speeds}))
        seal(staged, Manifest(call=call, files=hash_files(staged), metrics={}, made_from=inputs))
        return store.publish(call, staged)

    def _report(self, store, model):
        return json.loads((store.fetch(model) / "records.json").read_text())


@pytest.fixture
def release(tmp_path):
    """Publishes an evaluation with its release and lets the gate decide; returns what the UI is told."""

    def decide(name, evaluation, **recipe):
        store = LocalArtifactStore(home=str(tmp_path))
        files = {"records.json": json.dumps(evaluation[1])}
        made_from = {
            kind: publish(store, kind, files, name) for kind in ("formatted_corpus", "base_model", "onnx_int4_model")
        }
        report = publish_report(store, *evaluation, name, made_from)
        bundle = publish(store, "release_bundle", {"release.json": name}, name, made_from={"eval_report": report})
        shown = []

        @dg.op
        def champion(context):
            decided = decide_champion(context, bundle, load_recipe("smol-cpu", recipe), "smol-cpu", store, Scored())
            shown.append(decided.shown)

        dg.GraphDefinition("decide", node_defs=[champion]).execute_in_process()
        return shown[0]

    return decide


def better():
    return make(means={**MEANS, "int4": 0.51}, right={**RIGHT, "int4": 0.95})


def test_a_better_release_is_promoted_and_shows_what_changed(release, tmp_path):
    first = release("first", make())
    assert first["decision"] == "Promoted: it is fit for release, and there is no champion yet."
    assert "Promoted: it is the champion" in Path(first["page"].path).read_text()
    shown = release("second", better())
    assert "NLL is measurably better than the champion's" in shown["decision"]
    rows = [record.data for record in shown["What changed since the champion"].records]
    (exact,) = (row for row in rows if row["int4"] == "Exact match")
    assert {"champion": "81.6 %", "this release": "93.4 %"}.items() <= exact.items()
    assert "| Exact match |" in shown["what changed, in full"].value
    assert "Promoted: it is the champion" in Path(shown["page"].path).read_text()
    assert release("second", better()) == {"decision": "It is the champion.", "reused": True}
    assert [entry.action for entry in champion(tmp_path).history()] == ["promote", "promote"]


def test_a_champion_whose_model_is_gone_is_said_to_be_gone(release, tmp_path):
    release("first", make())
    shutil.rmtree(tmp_path / "gen-model" / "onnx_int4_model")
    shown = release("second", better())
    sentence = shown["decision"]
    assert sentence.replace("'", "&#39;") in Path(shown["page"].path).read_text()
    assert "The champion's int4 model is gone from the store" in sentence
    assert "phi3 champion retire" in sentence
    assert [entry.action for entry in champion(tmp_path).history()] == ["promote", "refuse"]


def test_whoever_was_best_in_something_stays_in_mind(release, tmp_path):
    """A second champion that answers a little less exactly is held against the first one too when a third comes."""
    release("first", make(items=300, right={**RIGHT, "int4": 0.8}))
    release("second", make(items=300, means={**MEANS, "int4": 0.51}, right={**RIGHT, "int4": 0.795}))
    first, second = champion(tmp_path).history()
    assert second.action == "promote"
    assert [ref["identity"] for ref in second.decision["best"]] == [
        first.decision["made_of"]["onnx_int4_model"]["identity"]
    ]
    release("third", make(items=300, means={**MEANS, "int4": 0.45}, right={**RIGHT, "int4": 0.5, "merged": 0.5}))
    refused = champion(tmp_path).history()[-1]
    (sentence,) = (one["sentence"] for one in refused.decision["findings"] if one["rule"] == "exact_match_is_kept")
    assert "worse than the champion" in sentence
    assert "worse than the best champion so far" in sentence


def test_ten_retrains_that_each_lose_a_point_do_not_add_up(release, tmp_path):
    """Each is likelier than the one before and loses one point of exact match, of the two that a release may lose.

    From decision to decision, through what each of them recorded.
    """
    for number in range(11):
        right = {**RIGHT, "merged": 0.9 - 0.01 * number, "int4": 0.9 - 0.01 * number}
        release(str(number), make(items=500, means={**MEANS, "int4": 0.6 - 0.04 * number}, right=right))
    entries = champion(tmp_path).history()
    assert [entry.action for entry in entries] == ["promote", "promote", *["refuse"] * 9]
    third = entries[2].decision["findings"]
    (sentence,) = (one["sentence"] for one in third if one["rule"] == "exact_match_is_kept")
    # Against the champion alone it would have gone on.
    assert re.search(r"worse than the champion, and a loss of more than 2.0 points can be ruled out", sentence)
    assert re.search(r"the best champion so far, and a loss of more than 2.0 points cannot be ruled out", sentence)


def test_the_champion_stays_when_the_new_one_is_no_better(release, tmp_path):
    release("first", make())
    sentence = release("second", make())["decision"]
    assert sentence.startswith("Fit for release, but the champion stays: NLL is not measurably better")
    assert [entry.action for entry in champion(tmp_path).history()] == ["promote", "refuse"]


def test_a_release_that_waits_for_approval_is_not_champion(release, tmp_path):
    """Materialising was promoting: nobody could look at a model first."""
    shown = release("first", make(), promotion="approval")
    assert "It waits for approval: phi3 champion approve" in shown["decision"]
    assert champion(tmp_path).present() is None
    (waiting,) = champion(tmp_path).proposals()
    assert waiting.decision["promote"] is True


def test_of_two_runs_that_end_together_the_second_is_judged_anew(release, tmp_path, monkeypatch):
    """The second failed: its decision had been made against a champion that was none any more."""
    release("first", make())
    promote = Champion.promote
    raced = []

    def another_is_faster(self, *args, **kwargs):
        if not raced:
            raced.append(True)
            release("faster", better())
        return promote(self, *args, **kwargs)

    monkeypatch.setattr(Champion, "promote", another_is_faster)
    best = make(means={**MEANS, "int4": 0.4}, right={**RIGHT, "int4": 0.97})
    shown = release("second", best)
    assert "NLL is measurably better than the champion's" in shown["decision"]
    names = [entry.decision["made_of"]["release_bundle"]["identity"] for entry in champion(tmp_path).history()]
    assert len(set(names)) == 3
    assert [entry.action for entry in champion(tmp_path).history()] == ["promote"] * 3
    assert ChampionChanged.__name__ not in shown["decision"]
