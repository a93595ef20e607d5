"""What every artefact store must do. Subclass it and give a `store` fixture, and `break_file` for its storage."""

import threading

import pytest

from phi3_assets.core.errors import DamagedArtefact, UserError
from phi3_assets.core.files import hash_files
from phi3_assets.core.manifest import ArtefactRef, Manifest, seal
from phi3_assets.core.step import StepCall
from phi3_assets.resources.store import ArtifactStore

CALL = StepCall(step="raw_dataset", code_version="1", params={}, inputs={}, libraries={})


def stage(store: ArtifactStore, text: str = "content", call: StepCall = CALL):
    """A sealed directory, as a worker leaves it."""
    staged = store.staging_path(call)
    (staged / "sub").mkdir(parents=True)
    (staged / "sub" / "file.txt").write_text(text)
    seal(staged, Manifest(call=call, files=hash_files(staged), metrics={"n": 1}))
    return staged


def _interrupt() -> None:
    raise KeyboardInterrupt


class StoreContract:
    """Tests any implementation."""

    def break_file(self, store: ArtifactStore, ref: ArtefactRef) -> None:
        """Change one byte of sub/file.txt, keeping its size."""
        raise NotImplementedError

    def test_nothing_is_found_before_it_is_published(self, store):
        assert store.find(CALL.step, CALL.identity) is None
        stage(store)
        assert store.find(CALL.step, CALL.identity) is None

    def test_published_is_found_whole(self, store):
        staged = stage(store)
        made = store.publish(CALL, staged)
        assert not staged.exists()
        assert store.find(CALL.step, CALL.identity) == made
        assert (store.fetch(made.ref, content=True) / "sub" / "file.txt").read_text() == "content"

    def test_first_writer_wins_and_the_other_gets_its_artefact(self, store):
        first, second = stage(store, "first"), stage(store, "second")
        made = store.publish(CALL, first)
        assert store.publish(CALL, second) == made
        assert not second.exists()
        assert (store.fetch(made.ref) / "sub" / "file.txt").read_text() == "first"

    def test_half_a_directory_is_refused(self, store):
        staged = stage(store)
        (staged / "sub" / "file.txt").unlink()
        with pytest.raises(DamagedArtefact, match="is missing"):
            store.publish(CALL, staged)
        assert store.find(CALL.step, CALL.identity) is None

    def test_damage_is_seen_when_content_is_asked_for(self, store):
        ref = store.publish(CALL, stage(store)).ref
        self.break_file(store, ref)
        with pytest.raises(DamagedArtefact, match=r"sub/file.txt was changed.*Delete the artefact's directory"):
            store.fetch(ref, content=True)

    def test_missing_artefact_says_the_way_out(self, store):
        with pytest.raises(UserError, match="Materialise raw_dataset again"):
            store.fetch(ArtefactRef("raw_dataset", "0" * 64, "0" * 64))

    def test_one_of_two_claimants_waits(self, store):
        order = []
        inside = threading.Event()

        def second():
            inside.wait()
            with store.claim(CALL, lambda who: order.append("second waits")):
                order.append("second has it")

        thread = threading.Thread(target=second)
        thread.start()
        with store.claim(CALL):
            inside.set()
            while not order:
                pass
            order.append("first is done")
        thread.join()
        assert order == ["second waits", "first is done", "second has it"]

    def test_who_waits_is_told_for_whom(self, store):
        """It waited without a word; whether for a run that was making it or for a dead one, nobody could say."""
        told = []
        with (
            store.claim(CALL, run="0a1b2c3d-0000"),
            pytest.raises(KeyboardInterrupt),  # what a signal raises
            store.claim(CALL, lambda who: told.append(who) or _interrupt()),
        ):
            pass
        assert len(told) == 1
        assert told[0].startswith(f"run 0a1b2c3d, which is making raw_dataset {CALL.identity[:16]} (process ")
        with store.claim(CALL, lambda who: pytest.fail(f"held by {who}")):
            pass

    def test_claim_clears_what_a_killed_writer_left(self, store):
        staged = stage(store)
        with store.claim(CALL):
            assert not staged.exists()

    def test_log_is_kept_beside_the_artefact(self, store, tmp_path):
        ref = store.publish(CALL, stage(store)).ref
        log = tmp_path / "worker.log"
        log.write_text("a line")
        assert store.keep_log(CALL, log)
        assert store.fetch(ref, content=True)  # beside it, not in it
