"""The store on a local disk."""

from phi3_assets.core.manifest import ArtefactRef
from phi3_assets.release.champion import Champion
from phi3_assets.resources.local_ledger import LocalLedger
from phi3_assets_tests.resources.store_contract import CALL, StoreContract, stage


class TestLocalStore(StoreContract):
    def break_file(self, store, ref):
        (store.directory(ref.kind, ref.identity) / "sub" / "file.txt").write_text("c0ntent")


def test_a_directory_without_manifest_is_moved_aside_not_deleted(store):
    directory = store.directory(CALL.step, CALL.identity)
    directory.mkdir(parents=True)
    (directory / "notes.txt").write_text("mine")
    made = store.publish(CALL, stage(store))
    assert store.find(CALL.step, CALL.identity) == made
    assert [path.read_text() for path in directory.parent.glob("*no-manifest*/notes.txt")] == ["mine"]


def test_artefacts_stand_in_the_seeds_folders(store):
    made = store.publish(CALL, stage(store))
    assert store.where(made.ref) == str(store.home_path / "fine-tuning" / "raw_dataset" / CALL.identity[:16])


def test_a_copied_home_is_a_home(store, tmp_path):
    """Manifests hold no absolute path."""
    import shutil

    from phi3_assets.resources.local_store import LocalArtifactStore

    made = store.publish(CALL, stage(store))
    shutil.copytree(store.home_path, tmp_path / "elsewhere")
    moved = LocalArtifactStore(home=str(tmp_path / "elsewhere"))
    assert moved.fetch(made.ref, content=True).is_relative_to(tmp_path / "elsewhere")


def test_remote_data_is_brought_here(store, tmp_path):
    """Steps see local folders only."""
    source = tmp_path / "remote"
    source.mkdir()
    (source / "a.csv").write_text("Question,Best Answer\nwhat?,this\n")
    url = f"file://{source}"
    folder = store.datasets_path(url)
    assert folder.is_relative_to(store.home_path)
    assert (folder / "a.csv").read_bytes() == (source / "a.csv").read_bytes()


def test_the_champion_of_an_old_home_is_taken_over(store):
    """It stood in gen-model/champion.json; a home that was moved on would have had none, and promoted anything."""
    ref = {kind: ArtefactRef(kind, "a" * 64, "b" * 64) for kind in ("release_bundle", "eval_report")}
    before = Champion(LocalLedger(store.home_path / "elsewhere"), "x")
    before.promote(*ref.values(), {"promote": True, "sentence": "Promoted."}, judged_against=None, check=lambda _: None)
    written = store.home_path / "elsewhere" / "products" / "x" / "champion.json"
    (store.home_path / "gen-model" / "champion.json").write_bytes(written.read_bytes())
    assert Champion(store.ledger, "operations-desk").present().release == ref["release_bundle"]
    assert Champion(store.ledger, "operations-desk").history() == before.history()
    assert not (store.home_path / "gen-model" / "champion.json").exists()
