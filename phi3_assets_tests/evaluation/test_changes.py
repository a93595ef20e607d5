"""What changed since the champion: found, told on a page and in Markdown, and safe against what users write."""

from dataclasses import replace

from phi3_assets.core.manifest import Manifest
from phi3_assets.core.step import StepCall
from phi3_assets.evaluation.changes import Side, find_changes, markdown, page
from phi3_assets_tests.evaluation.test_gate import MEANS, RIGHT, against, make


def manifest(step, params, code="1", library="1.0", metrics=None):
    return Manifest(StepCall(step, code, params, {}, {"torch": library}), {}, metrics or {})


def side(evaluation, rows, lora_r=64, **more):
    scores, records = evaluation
    numbers = {**scores["variants"]["int4"], "bytes": 117_000_000, "tokens_per_s": 110.0}
    manifests = {
        "lora_adapter": manifest("lora_adapter", {"lora_r": lora_r, "target_modules": ["o_proj"]}, **more),
        "eval_report": manifest("eval_report", {"max_new_tokens": 48}, **more),
    }
    return Side(records, manifests, rows, numbers)


KNOWN = {f"row-{number}" for number in range(60)}


def two_sides():
    evaluation = make(right={**RIGHT, "int4": 0.9})
    before = make(means={**MEANS, "int4": 1.0}, right={**RIGHT, "int4": 0.5})
    ours = side(evaluation, {"a", "b", "c"}, lora_r=16)
    champion = side(before, {"b", "c", "d", "e"}, library="0.9", code="0")
    return ours, champion, against(evaluation, before)


def test_what_differs_is_found():
    ours, champion, _ = two_sides()
    changes = find_changes(ours, champion, KNOWN)
    assert changes.recipe == [("lora_r", "64", "16")]
    assert changes.libraries == [("torch", "0.9", "1.0")]
    assert changes.code == [("eval_report", "0", "1"), ("lora_adapter", "0", "1")]
    assert changes.data == [
        ("training rows", "4 before, 3 now: 1 added, 2 removed"),
        ("test set", "76 items now, 16 of them new since the champion, 0 gone"),
    ]
    assert [row[:2] for row in changes.slices] == [
        ("long answers", "38"),
        ("new items", "16"),
        ("old items", "60"),
        ("short answers", "38"),
    ]
    _, before, now, difference = next(row for row in changes.scores if row[0] == "Exact match")
    assert difference.startswith("+0.")
    assert float(before.split()[0]) < float(now.split()[0])
    assert ("Tokens/s", "110.0", "110.0", "") in changes.scores


def test_gained_and_lost_items_are_those_whose_answers_moved():
    ours, champion, _ = two_sides()
    changes = find_changes(ours, champion, KNOWN)
    for found, before, after in ((changes.gained, 0, 1), (changes.lost, 1, 0)):
        for own, theirs in found:
            assert own["id"] == theirs["id"]
            assert theirs["variants"]["int4"]["exact_match"] == before
            assert own["variants"]["int4"]["exact_match"] == after
    assert len(changes.gained) > 10
    same = find_changes(ours, ours, {record["id"] for record in ours.records})
    assert [same.gained, same.lost, same.recipe, same.libraries, same.code] == [[]] * 5
    assert same.data[1] == ("test set", "the same 76 items")


def test_a_champion_whose_artefacts_are_gone_can_still_be_compared():
    ours, champion, _ = two_sides()
    changes = find_changes(ours, Side(champion.records, {}, None, {}), KNOWN)
    assert changes.recipe == changes.libraries == changes.code == []
    assert changes.data[0] == ("training rows", "not known: the raw_dataset of the champion is gone")
    assert changes.data[2] == (
        "not compared",
        "recipe and versions of eval_report, lora_adapter: one of the two is gone",
    )
    assert next(row for row in changes.scores if row[0] == "NLL")[1] == "-"


def test_the_page_tells_all_and_escapes_what_users_write():
    ours, champion, decision = two_sides()
    evil = "<script>alert(1)</script>"
    changes = find_changes(ours, champion, KNOWN)
    changes.gained[0][0]["question"] = evil
    text = page("Promoted", "Release 1", decision, {"Report of this release": "../eval_report/x/report.html"}, changes)
    assert evil not in text
    assert "&lt;script&gt;" in text
    assert "<h1>Promoted</h1>" in text
    assert decision.findings[-1].sentence.replace("'", "&#39;") in text
    assert f"Gained: {len(changes.gained)} answers became better" in text
    assert "Of 76 questions" in text
    assert "16 of the questions are new since the champion" in text
    assert "http" not in text.replace('"../', "")


def test_the_ui_is_told_the_same_without_text_of_the_user():
    ours, champion, _ = two_sides()
    changes = find_changes(ours, champion, KNOWN)
    text = markdown(changes)
    assert "- recipe `lora_r`: `64` to `16`" in text
    assert "- training rows: 4 before, 3 now: 1 added, 2 removed" in text
    assert f"{len(changes.gained)} became better, {len(changes.lost)} worse" in text
    assert ours.records[0]["question"] not in text.split()


def test_a_file_s_name_is_no_markup_in_the_ui():
    ours, champion, _ = two_sides()
    evil = "<img src=x onerror=alert(1)>.csv"
    changes = replace(find_changes(ours, champion, KNOWN), slices=[(evil, "3", "0.1", "0.2", "+0.1")])
    assert "| &lt;img src=x onerror=alert(1)&gt;.csv | 3 |" in markdown(changes)
