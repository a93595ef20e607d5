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
from phi3_assets.release.champion import Champion, ChampionChanged
from phi3_assets.resources.local_ledger import LocalLedger

YES = {"promote": True, "sentence": "Promoted: better."}


def ref(kind, name):
    return ArtefactRef(kind, f"{name:064x}", f"{name:064x}")


def sound(_):
    """Every artefact is whole."""


def champion(folder):
    return Champion(LocalLedger(folder), "desk")


def promote(folder, name, against=None, decision=YES, check=sound):
    return champion(folder).promote(
        ref("release_bundle", name),
        ref("eval_report", name),
        decision,
        judged_against=None if against is None else ref("release_bundle", against),
        check=check,
    )


def test_promote_history_and_rollback(tmp_path):
    assert champion(tmp_path).present() is None
    promote(tmp_path, 1)
    promote(tmp_path, 2, against=1)
    promote(tmp_path, 3, against=2)
    back = champion(tmp_path).rollback("worse in the field", check=sound)
    assert back.release == ref("release_bundle", 2)
    assert champion(tmp_path).present() == back
    assert champion(tmp_path).rollback("worse still", check=sound).release == ref("release_bundle", 1)
    assert [(entry.action, entry.release.identity[-1]) for entry in champion(tmp_path).history()] == [
        ("promote", "1"),
        ("promote", "2"),
        ("promote", "3"),
        ("rollback", "2"),
        ("rollback", "1"),
    ]
    with pytest.raises(UserError, match="no champion before"):
        champion(tmp_path).rollback("again", check=sound)
    promote(tmp_path, 4, against=1)
    assert champion(tmp_path).rollback("no", check=sound).release == ref("release_bundle", 1)


def test_promoting_the_champion_again_changes_nothing(tmp_path):
    first = promote(tmp_path, 1)
    assert promote(tmp_path, 1) == first
    assert len(champion(tmp_path).history()) == 1


def test_a_refused_model_is_not_promoted(tmp_path):
    with pytest.raises(UserError, match=r"decided against it. Not fit for release: too few"):
        promote(tmp_path, 1, decision={"promote": False, "sentence": "Not fit for release: too few items."})
    assert champion(tmp_path).present() is None


def test_what_a_champion_was_made_of_is_known_after_a_rollback(tmp_path):
    promote(tmp_path, 1, decision={**YES, "made_of": {"raw_dataset": "x"}})
    promote(tmp_path, 2, against=1)
    back = champion(tmp_path).rollback("worse in the field", check=sound)
    assert back.decision == {"made_of": {"raw_dataset": "x"}, "sentence": "worse in the field"}


NO = {"promote": False, "sentence": "Fit for release, but the champion stays: NLL is not measurably better."}


def refuse(home, name, decision=NO):
    return champion(home).refuse(ref("release_bundle", name), ref("eval_report", name), decision)


def test_refusals_are_kept_and_change_nothing(tmp_path):
    refuse(tmp_path, 9)
    assert champion(tmp_path).present() is None
    first = promote(tmp_path, 1)
    refuse(tmp_path, 2)
    assert champion(tmp_path).present() == first
    assert promote(tmp_path, 1) == first
    promote(tmp_path, 4, against=1)
    refuse(tmp_path, 5)
    assert champion(tmp_path).rollback("worse", check=sound).release == ref("release_bundle", 1)
    actions = [(entry.action, entry.release and entry.release.identity[-1]) for entry in champion(tmp_path).history()]
    assert actions == [
        ("refuse", "9"),
        ("promote", "1"),
        ("refuse", "2"),
        ("promote", "4"),
        ("refuse", "5"),
        ("rollback", "1"),
    ]


def test_the_same_refusal_is_kept_once_but_again_after_another_decision(tmp_path):
    assert refuse(tmp_path, 2) == refuse(tmp_path, 2)
    refuse(tmp_path, 3)
    refuse(tmp_path, 2)
    assert len(champion(tmp_path).history()) == 2
    promote(tmp_path, 1)
    refuse(tmp_path, 2)
    assert len(champion(tmp_path).history()) == 4


def test_a_decision_against_a_former_champion_is_void(tmp_path):
    promote(tmp_path, 1)
    promote(tmp_path, 2, against=1)
    with pytest.raises(ChampionChanged, match=r"champion is now release 0+; this decision was made against release"):
        promote(tmp_path, 3, against=1)


def test_a_damaged_release_is_neither_promoted_nor_rolled_back_to(tmp_path):
    def broken(artefact):
        raise DamagedArtefact(f"{artefact.kind} was changed")

    with pytest.raises(DamagedArtefact):
        promote(tmp_path, 1, check=broken)
    promote(tmp_path, 1)
    promote(tmp_path, 2, against=1)
    with pytest.raises(DamagedArtefact):
        champion(tmp_path).rollback("x", check=broken)
    assert champion(tmp_path).present().release == ref("release_bundle", 2)


@pytest.mark.parametrize("edit", ["release", "drop_last", "drop_first", "cut"])
def test_an_edited_history_is_noticed(tmp_path, edit):
    promote(tmp_path, 1)
    promote(tmp_path, 2, against=1)
    path = tmp_path / "products" / "desk" / "champion.json"
    value = json.loads(path.read_text())
    if edit == "release":
        value["history"][0]["release"]["digest"] = "f" * 64
    elif edit == "drop_last":
        value["history"].pop()
    elif edit == "drop_first":
        value["history"].pop(0)
    path.write_text(path.read_text()[:-40] if edit == "cut" else json.dumps(value))
    with pytest.raises(DamagedArtefact, match="Restore it from a backup"):
        champion(tmp_path).present()


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
    assert champion(tmp_path).present().release == ref("release_bundle", winners[0])
    assert len(champion(tmp_path).history()) == 1


def _promote_for_ever(home, started):
    while True:
        now = champion(home).present()
        name = int(now.release.identity, 16) if now else 0
        promote(home, name + 1, against=name if now else None)
        started.set()


def test_killed_at_any_moment_the_champion_is_whole(tmp_path):
    """SIGKILL of a process that does nothing but promote, at random moments."""
    processes = multiprocessing.get_context("fork")
    source = random.Random(0)
    length = 0
    for _ in range(25):
        started = processes.Event()
        victim = processes.Process(target=_promote_for_ever, args=(tmp_path, started))
        victim.start()
        started.wait()
        time.sleep(source.random() * 0.05)
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        entries = champion(tmp_path).history()
        assert len(entries) >= length
        assert [int(entry.release.identity, 16) for entry in entries] == list(range(1, len(entries) + 1))
        length = len(entries)
    assert length >= 25
    promote(tmp_path, length + 1, against=length)  # no lock was left behind


def test_products_have_champions_of_their_own(tmp_path):
    """One home served one line of models: a second team's data was judged against the first team's champion."""
    promote(tmp_path, 1)
    other = Champion(LocalLedger(tmp_path), "other")
    assert other.present() is None
    assert other.history() == []


def propose(folder, name, against=None):
    against = None if against is None else ref("release_bundle", against)
    return champion(folder).propose(ref("release_bundle", name), ref("eval_report", name), YES, judged_against=against)


def test_a_proposal_waits_until_a_person_approves_it(tmp_path):
    """Materialising was promoting: nobody could look at a model before it was handed out."""
    assert propose(tmp_path, 1) == propose(tmp_path, 1)
    assert champion(tmp_path).present() is None
    assert [entry.release for entry in champion(tmp_path).proposals()] == [ref("release_bundle", 1)]
    approved = champion(tmp_path).approve("", "looked at twenty answers", check=sound)
    assert champion(tmp_path).present() == approved
    assert (approved.action, approved.sentence) == ("promote", "Promoted: better. Approved: looked at twenty answers")
    assert champion(tmp_path).proposals() == []


def test_approval_names_what_waits_and_refuses_what_is_out_of_date(tmp_path):
    with pytest.raises(UserError, match="waiting in desk: none"):
        champion(tmp_path).approve("", "x", check=sound)
    propose(tmp_path, 0xA << 252)
    propose(tmp_path, 0xB << 252)
    with pytest.raises(UserError, match="waiting in desk: a0+, b0+"):
        champion(tmp_path).approve("", "x", check=sound)
    champion(tmp_path).approve("b", "x", check=sound)
    with pytest.raises(ChampionChanged, match="Materialise champion again"):
        champion(tmp_path).approve("a", "x", check=sound)


def test_a_retired_champion_leaves_the_place_empty(tmp_path):
    with pytest.raises(UserError, match="desk has no champion to retire"):
        champion(tmp_path).retire("gone")
    promote(tmp_path, 1)
    promote(tmp_path, 2, against=1)
    champion(tmp_path).retire("it answered for another department")
    assert champion(tmp_path).present() is None
    promote(tmp_path, 3)
    with pytest.raises(UserError, match="no champion before"):
        champion(tmp_path).rollback("x", check=sound)
