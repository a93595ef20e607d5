"""The champion is always one whole, valid release: whatever is killed, however many promote at once."""

import json
import multiprocessing
import os
import random
import signal
import time

import pytest

from phi3_assets.core.errors import DamagedArtefact, UserError
from phi3_assets.core.manifest import ArtefactRef
from phi3_assets.release import champion

YES = {"promote": True, "sentence": "Promoted: better."}


def ref(kind, name):
    return ArtefactRef(kind, f"{name:064x}", f"{name:064x}")


def sound(_):
    """Every artefact is whole."""


def promote(home, name, against=None, decision=YES, check=sound):
    return champion.promote(
        home,
        ref("release_bundle", name),
        ref("eval_report", name),
        decision,
        judged_against=None if against is None else ref("release_bundle", against),
        check=check,
    )


def test_promote_history_and_rollback(tmp_path):
    assert champion.champion(tmp_path) is None
    promote(tmp_path, 1)
    promote(tmp_path, 2, against=1)
    promote(tmp_path, 3, against=2)
    back = champion.rollback(tmp_path, "worse in the field", check=sound)
    assert back.release == ref("release_bundle", 2)
    assert champion.champion(tmp_path) == back
    assert champion.rollback(tmp_path, "worse still", check=sound).release == ref("release_bundle", 1)
    assert [(entry.action, entry.release.identity[-1]) for entry in champion.history(tmp_path)] == [
        ("promote", "1"),
        ("promote", "2"),
        ("promote", "3"),
        ("rollback", "2"),
        ("rollback", "1"),
    ]
    with pytest.raises(UserError, match="no champion before"):
        champion.rollback(tmp_path, "again", check=sound)
    promote(tmp_path, 4, against=1)
    assert champion.rollback(tmp_path, "no", check=sound).release == ref("release_bundle", 1)


def test_promoting_the_champion_again_changes_nothing(tmp_path):
    first = promote(tmp_path, 1)
    assert promote(tmp_path, 1) == first
    assert len(champion.history(tmp_path)) == 1


def test_a_refused_model_is_not_promoted(tmp_path):
    with pytest.raises(UserError, match=r"decided against it. Not fit for release: too few"):
        promote(tmp_path, 1, decision={"promote": False, "sentence": "Not fit for release: too few items."})
    assert champion.champion(tmp_path) is None


def test_what_a_champion_was_made_of_is_known_after_a_rollback(tmp_path):
    promote(tmp_path, 1, decision={**YES, "made_of": {"raw_dataset": "x"}})
    promote(tmp_path, 2, against=1)
    back = champion.rollback(tmp_path, "worse in the field", check=sound)
    assert back.decision == {"made_of": {"raw_dataset": "x"}, "sentence": "worse in the field"}


NO = {"promote": False, "sentence": "Fit for release, but the champion stays: NLL is not measurably better."}


def refuse(home, name, decision=NO):
    return champion.refuse(home, ref("release_bundle", name), ref("eval_report", name), decision)


def test_refusals_are_kept_and_change_nothing(tmp_path):
    refuse(tmp_path, 9)
    assert champion.champion(tmp_path) is None
    first = promote(tmp_path, 1)
    refuse(tmp_path, 2)
    champion.refuse(tmp_path, None, ref("eval_report", 3), NO)
    assert champion.champion(tmp_path) == first
    assert promote(tmp_path, 1) == first
    promote(tmp_path, 4, against=1)
    refuse(tmp_path, 5)
    assert champion.rollback(tmp_path, "worse", check=sound).release == ref("release_bundle", 1)
    actions = [(entry.action, entry.release and entry.release.identity[-1]) for entry in champion.history(tmp_path)]
    assert actions == [
        ("refuse", "9"),
        ("promote", "1"),
        ("refuse", "2"),
        ("refuse", None),
        ("promote", "4"),
        ("refuse", "5"),
        ("rollback", "1"),
    ]


def test_the_same_refusal_is_kept_once_but_again_after_another_decision(tmp_path):
    assert refuse(tmp_path, 2) == refuse(tmp_path, 2)
    refuse(tmp_path, 3)
    refuse(tmp_path, 2)
    assert len(champion.history(tmp_path)) == 2
    promote(tmp_path, 1)
    refuse(tmp_path, 2)
    assert len(champion.history(tmp_path)) == 4


def test_a_decision_against_a_former_champion_is_void(tmp_path):
    promote(tmp_path, 1)
    promote(tmp_path, 2, against=1)
    with pytest.raises(UserError, match=r"champion is now release 0+; this decision was made against release"):
        promote(tmp_path, 3, against=1)


def test_a_damaged_release_is_neither_promoted_nor_rolled_back_to(tmp_path):
    def broken(artefact):
        raise DamagedArtefact(f"{artefact.kind} was changed")

    with pytest.raises(DamagedArtefact):
        promote(tmp_path, 1, check=broken)
    promote(tmp_path, 1)
    promote(tmp_path, 2, against=1)
    with pytest.raises(DamagedArtefact):
        champion.rollback(tmp_path, "x", check=broken)
    assert champion.champion(tmp_path).release == ref("release_bundle", 2)


@pytest.mark.parametrize("edit", ["release", "drop_last", "drop_first", "cut"])
def test_an_edited_history_is_noticed(tmp_path, edit):
    promote(tmp_path, 1)
    promote(tmp_path, 2, against=1)
    path = champion.champion_path(tmp_path)
    value = json.loads(path.read_text())
    if edit == "release":
        value["history"][0]["release"]["digest"] = "f" * 64
    elif edit == "drop_last":
        value["history"].pop()
    elif edit == "drop_first":
        value["history"].pop(0)
    path.write_text(path.read_text()[:-40] if edit == "cut" else json.dumps(value))
    with pytest.raises(DamagedArtefact, match="Restore it from a backup"):
        champion.champion(tmp_path)


def _race(home, name, start, results):
    start.wait()
    try:
        promote(home, name)
        results.put(name)
    except UserError:
        results.put(None)


def test_of_promotions_at_once_exactly_one_wins(tmp_path):
    """Eight candidates, all judged while there was no champion."""
    processes = multiprocessing.get_context("fork")
    start, results = processes.Event(), processes.Queue()
    racers = [processes.Process(target=_race, args=(tmp_path, name, start, results)) for name in range(1, 9)]
    for racer in racers:
        racer.start()
    start.set()
    winners = [name for name in (results.get(timeout=60) for _ in racers) if name]
    for racer in racers:
        racer.join()
    assert len(winners) == 1
    assert champion.champion(tmp_path).release == ref("release_bundle", winners[0])
    assert len(champion.history(tmp_path)) == 1


def _promote_for_ever(home):
    while True:
        now = champion.champion(home)
        name = int(now.release.identity, 16) if now else 0
        promote(home, name + 1, against=name if now else None)


def test_killed_at_any_moment_the_champion_is_whole(tmp_path):
    """SIGKILL of a process that does nothing but promote, at random moments."""
    processes = multiprocessing.get_context("fork")
    source = random.Random(0)
    length = 0
    for _ in range(25):
        victim = processes.Process(target=_promote_for_ever, args=(tmp_path,))
        victim.start()
        time.sleep(0.02 + source.random() * 0.05)
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        entries = champion.history(tmp_path)
        assert len(entries) >= length
        assert [int(entry.release.identity, 16) for entry in entries] == list(range(1, len(entries) + 1))
        length = len(entries)
    assert length > 25
    promote(tmp_path, length + 1, against=length)  # no lock was left behind
