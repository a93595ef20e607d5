"""Test sets in the ledger: frozen once, grown on request, retired with a reason, and never lost or damaged unseen."""

import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from phi3_assets.core.errors import DamagedArtefact, UserError
from phi3_assets.core.manifest import digest_of, fingerprint
from phi3_assets.data.testset import versions as sets
from phi3_assets.resources.local_ledger import LocalLedger

PRODUCT = "my-desk"


@pytest.fixture
def ledger(tmp_path):
    return LocalLedger(tmp_path / "ledger")


def proposed(tmp_path, *ids):
    path = tmp_path / f"proposed-{'-'.join(ids)}.parquet"
    pq.write_table(pa.table({"id": list(ids)}), path)
    return path


def freeze(ledger, file, identity, product=PRODUCT, made_with="now"):
    if made_with == "now":
        made_with = sets.snapshot_digest(sets.read_versions(ledger, product))
    return sets.freeze(ledger, product, file, identity * 64, made_with, {"group_column": ""})


def states(ledger, product=PRODUCT):
    return [version.state for version in sets.read_versions(ledger, product)]


def test_first_use_freezes_and_the_second_does_not(ledger, tmp_path):
    assert sets.snapshot_digest(sets.read_versions(ledger, PRODUCT)) is None
    frozen = freeze(ledger, proposed(tmp_path, "a", "b"), "1")
    assert (frozen.file, frozen.rows, frozen.proposer) == (f"0001-{'1' * 16}.parquet", 2, "1" * 64)
    assert freeze(ledger, proposed(tmp_path, "a", "b"), "2") is None
    assert states(ledger) == ["present"]
    assert states(ledger, "another-desk") == []


def test_growing_adds_a_version_and_keeps_the_old(ledger, tmp_path):
    freeze(ledger, proposed(tmp_path, "a"), "1")
    freeze(ledger, proposed(tmp_path, "a", "b"), "2")
    assert states(ledger) == ["earlier", "present"]


def test_a_run_that_knew_no_test_set_cannot_replace_one(ledger, tmp_path):
    freeze(ledger, proposed(tmp_path, "a"), "1")
    with pytest.raises(UserError, match="Another run froze.*Run it again"):
        freeze(ledger, proposed(tmp_path, "b"), "2", made_with=None)
    assert states(ledger) == ["present"]


def test_of_two_that_freeze_at_one_time_one_is_told(ledger, tmp_path):
    """The file lock of the old place held on one machine only; the ledger's write-if-unchanged holds anywhere."""
    told = []

    def run(name):
        try:
            freeze(ledger, proposed(tmp_path, name), name, made_with=None)
        except UserError as error:
            told.append(str(error))

    threads = [threading.Thread(target=run, args=(name,)) for name in "12345"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 4
    assert states(ledger) == ["present"]


def test_a_snapshot_is_pinned_by_contents_and_states_alone(ledger, tmp_path):
    """Two homes with the same frozen rows must make the same raw_dataset, whoever froze them and when."""
    other = LocalLedger(tmp_path / "other")
    for each, identity in ((ledger, "1"), (other, "2")):
        freeze(each, proposed(tmp_path, "a"), identity)
        freeze(each, proposed(tmp_path, "a", "b"), f"{int(identity) + 2}")
    versions = sets.read_versions(ledger, PRODUCT)
    folder, digest = sets.lay_out(ledger, PRODUCT, versions, tmp_path / "work")
    assert digest == sets.snapshot_digest(sets.read_versions(other, PRODUCT))
    assert digest == digest_of(fingerprint(folder, "Snapshot"))
    assert sorted(path.parent.name for path in folder.glob("*/*.parquet")) == ["earlier", "present"]
    sets.retire(other, PRODUCT, "wrong", "me")
    assert digest != sets.snapshot_digest(sets.read_versions(other, PRODUCT))


def test_a_snapshot_that_was_touched_is_laid_out_again(ledger, tmp_path):
    freeze(ledger, proposed(tmp_path, "a"), "1")
    versions = sets.read_versions(ledger, PRODUCT)
    folder, digest = sets.lay_out(ledger, PRODUCT, versions, tmp_path / "work")
    (file,) = (folder / "present").iterdir()
    file.write_bytes(b"x")
    assert sets.lay_out(ledger, PRODUCT, versions, tmp_path / "work") == (folder, digest)
    assert digest_of(fingerprint(folder, "Snapshot")) == digest


@pytest.mark.parametrize("damage", ["gone", "other"])
def test_a_damaged_version_stops_every_run(ledger, tmp_path, damage):
    """Without it nobody can tell what was trained on; half a test set must not pass for one."""
    frozen = freeze(ledger, proposed(tmp_path, "a"), "1")
    key = sets.file_key(PRODUCT, frozen)
    if damage == "gone":
        ledger.remove(key)
    else:
        ledger.write(key, b"x", ledger.read(key).version)
    with pytest.raises(DamagedArtefact, match="Restore it from a backup"):
        sets.lay_out(ledger, PRODUCT, sets.read_versions(ledger, PRODUCT), tmp_path / "work")


def test_what_is_retired_stays_an_earlier_version_and_the_reason_is_kept(ledger, tmp_path):
    freeze(ledger, proposed(tmp_path, "a"), "1")
    sets.retire(ledger, PRODUCT, "data replaced", "ann")
    assert states(ledger) == ["retired"]
    folder, _ = sets.lay_out(ledger, PRODUCT, sets.read_versions(ledger, PRODUCT), tmp_path / "work")
    assert [path.parent.name for path in folder.glob("*/*.parquet")] == ["earlier"]
    last = sets.read_history(ledger, PRODUCT)[-1]
    assert (last["action"], last["reason"], last["by"]) == ("retire", "data replaced", "ann")
    with pytest.raises(UserError, match="no present test set"):
        sets.retire(ledger, PRODUCT, "again", "ann")
    freeze(ledger, proposed(tmp_path, "b"), "2")
    assert states(ledger) == ["retired", "present"]


def test_test_sets_of_a_home_from_before_the_ledger_are_taken_over_once(ledger, tmp_path):
    """An old home that is opened by a new version must not train on what it was tested with."""
    old = tmp_path / "old"
    old.mkdir()
    for number, ids in ((1, ["a"]), (2, ["a", "b"])):
        proposed(tmp_path, *ids).rename(old / f"{number:04d}-{'f' * 16}.parquet")
    contents = [path.read_bytes() for path in sorted(old.iterdir())]
    sets.adopt(ledger, PRODUCT, old)
    versions = sets.read_versions(ledger, PRODUCT)
    assert [version.state for version in versions] == ["earlier", "present"]
    assert [sets.read_bytes(ledger, PRODUCT, version) for version in versions] == contents
    assert not old.exists()
    sets.adopt(ledger, PRODUCT, old)
    assert sets.read_versions(ledger, PRODUCT) == versions


def test_taken_over_beside_others_they_are_earlier_ones(ledger, tmp_path):
    freeze(ledger, proposed(tmp_path, "z"), "1")
    old = tmp_path / "old"
    old.mkdir()
    proposed(tmp_path, "a").rename(old / "0001-ff.parquet")
    sets.adopt(ledger, PRODUCT, old)
    assert states(ledger) == ["earlier", "present"]


def test_what_is_erased_is_gone_from_the_ledgers_files(ledger, tmp_path):
    freeze(ledger, proposed(tmp_path, "a", "ann"), "1")
    freeze(ledger, proposed(tmp_path, "a", "ann", "b"), "2")

    def erase(content):
        return content.replace(b"ann", b"---"), content.count(b"ann") and 1

    changed = sets.replace_bytes(ledger, PRODUCT, erase, "asked to", "ann's lawyer")
    assert len(changed) == 2
    assert not any(b"ann" in path.read_bytes() for path in (tmp_path / "ledger").rglob("*.parquet"))
    assert states(ledger) == ["earlier", "present"]
    for version in sets.read_versions(ledger, PRODUCT):
        sets.read_bytes(ledger, PRODUCT, version)
    assert sets.read_history(ledger, PRODUCT)[-1]["reason"] == "asked to"
    assert sets.replace_bytes(ledger, PRODUCT, erase, "again", "x") == []
