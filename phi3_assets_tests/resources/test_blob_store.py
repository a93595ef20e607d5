"""The store in Azure Blob Storage, against Azurite: the contract, and what two machines and a network make of it."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from phi3_assets.azure import layout
from phi3_assets.azure.blobs import list_folder, remove_folder
from phi3_assets.azure.transfer import upload_directory
from phi3_assets.core.errors import DamagedArtefact, TransientError, UserError
from phi3_assets.core.files import hash_files
from phi3_assets.core.manifest import Manifest, digest_of, fingerprint, seal
from phi3_assets.core.step import StepCall
from phi3_assets.resources.blob_store import BlobArtifactStore
from phi3_assets.resources.execution import UserFiles
from phi3_assets_tests.resources.store_contract import CALL, StoreContract, stage

pytestmark = pytest.mark.azure


class Impatient(BlobArtifactStore):
    """With the shortest lease that the service gives."""

    lease_s = 15


@pytest.fixture
def store(azure, monkeypatch, home):
    azure.apply(monkeypatch)
    return Impatient(home=str(home))


@pytest.fixture
def other(store, tmp_path):
    """The store as another machine has it."""
    return Impatient(home=str(tmp_path / "other"))


def blob_of(store, ref, path):
    return store.container.get_blob_client(f"{store.settings.prefix}/{store.attempt_path(ref)}/{path}")


def everything(store):
    return list_folder(store.container, store.settings.prefix).keys()


class TestBlobStore(StoreContract):
    def break_file(self, store, ref):
        blob_of(store, ref, "sub/file.txt").upload_blob(b"c0ntent", overwrite=True)
        shutil.rmtree(store.directory(ref.kind, ref.identity))


def test_nothing_is_imported_or_reached_before_it_is_needed():
    code = """
import sys
from phi3_assets.resources.blob_store import BlobArtifactStore
BlobArtifactStore(home="nowhere")
assert not [name for name in sys.modules if name.startswith("azure")]
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_deleting_the_home_loses_nothing(store, other):
    made = store.publish(CALL, stage(store))
    version = store.ledger.write("products/desk/champion.json", b"{}", None)
    shutil.rmtree(store.home_path)
    again = Impatient(home=str(store.home_path))
    assert again.find(CALL.step, CALL.identity) == made
    assert (again.fetch(made.ref) / "sub" / "file.txt").read_text() == "content"
    assert again.ledger.read("products/desk/champion.json").version == version
    assert (other.fetch(made.ref, content=True) / "sub" / "file.txt").read_text() == "content"


def test_the_copy_stands_where_the_local_store_has_artefacts(store, azure):
    made = store.publish(CALL, stage(store))
    azure.clear()
    directory = store.fetch(made.ref, content=True)
    assert directory == store.home_path / "fine-tuning" / "raw_dataset" / CALL.identity[:16]
    assert azure.traffic("GET", "blob", "file.txt") == []  # the publisher has it already


def test_a_damaged_copy_is_mended(store, other, azure):
    made = store.publish(CALL, stage(store))
    file = other.fetch(made.ref) / "sub" / "file.txt"
    file.write_text("c0ntent")
    assert other.fetch(made.ref) == file.parents[1]  # its size is right
    assert (other.fetch(made.ref, content=True) / "sub" / "file.txt").read_text() == "content"
    file.unlink()
    (file.parent / "more.txt").write_text("more")
    assert (other.fetch(made.ref) / "sub" / "file.txt").read_text() == "content"
    assert not (file.parent / "more.txt").exists()


def test_mending_fetches_only_what_differs(store, other, azure):
    staged = stage(store)
    made = store.publish(CALL, staged)
    directory = other.fetch(made.ref)
    (directory / "manifest.json").unlink()
    shutil.copytree(directory, other.home_path / "model-cache" / "fetching" / "raw_dataset" / CALL.identity[:16])
    shutil.rmtree(directory)
    azure.clear()
    assert other.fetch(made.ref, content=True)
    assert azure.traffic("GET", "blob", "file.txt") == []


def test_a_persons_folder_in_the_place_of_a_copy_is_moved_aside(store, other):
    made = store.publish(CALL, stage(store))
    directory = other.directory(CALL.step, CALL.identity)
    directory.mkdir(parents=True)
    (directory / "notes.txt").write_text("mine")
    other.fetch(made.ref)
    assert [path.read_text() for path in directory.parent.glob("*no-manifest*/notes.txt")] == ["mine"]


def test_a_blob_that_was_deleted_is_damage_with_a_way_out(store, other):
    made = store.publish(CALL, stage(store))
    blob_of(store, made.ref, "sub/file.txt").delete_blob()
    for ask in (other.fetch, other.verify, other.peek, lambda ref: other.find(ref.kind, ref.identity)):
        with pytest.raises(DamagedArtefact, match=r"sub/file\.txt is missing\. Delete the artefact's directory in the"):
            ask(made.ref)


def test_what_was_deleted_is_no_longer_found_by_who_has_seen_it(store):
    """What a run has read of an artefact is kept, for it never changes; but it may be gone."""
    made = store.publish(CALL, stage(store))
    assert store.find(CALL.step, CALL.identity) == made
    remove_folder(store.container, f"{store.settings.prefix}/{layout.artefact(CALL.step, CALL.identity)}")
    assert store.find(CALL.step, CALL.identity) is None
    again = store.publish(CALL, stage(store, "again"))
    assert store.find(CALL.step, CALL.identity) == again


def test_verify_sees_a_blob_of_the_same_size_that_was_changed(store):
    made = store.publish(CALL, stage(store))
    store.verify(made.ref)
    blob_of(store, made.ref, "sub/file.txt").upload_blob(
        b"c0ntent", overwrite=True, metadata={"sha256": made.files["sub/file.txt"].sha256}
    )
    assert store.find(CALL.step, CALL.identity) == made
    with pytest.raises(DamagedArtefact, match=r"sub/file\.txt was changed since it was published"):
        store.verify(made.ref)


def test_verify_reads_what_the_service_cannot_vouch_for(store, azure):
    """As after the container was copied to another account: every ETag is another one."""
    made = store.publish(CALL, stage(store))
    kept = store.container.get_blob_client(f"{store.settings.prefix}/{store.attempt_path(made.ref)}.json")
    listing = json.loads(kept.download_blob().readall())
    copied = {path: {**blob, "etag": "another", "md5": ""} for path, blob in listing.items()}
    kept.upload_blob(json.dumps(copied), overwrite=True)
    azure.clear()
    store.verify(made.ref)
    assert len(azure.traffic("GET", "blob", "sub/file.txt")) == 1


@pytest.mark.parametrize("listing", [None, b"{", b"[]", b'{"sub/file.txt": {}}'])
def test_verify_reads_the_blobs_where_the_listing_is_lost(store, azure, listing):
    made = store.publish(CALL, stage(store))
    kept = store.container.get_blob_client(f"{store.settings.prefix}/{store.attempt_path(made.ref)}.json")
    kept.delete_blob()
    if listing is not None:
        kept.upload_blob(listing)
    azure.clear()
    store.verify(made.ref)
    assert len(azure.traffic("GET", "blob", "sub/file.txt")) == 1
    blob_of(store, made.ref, "sub/file.txt").upload_blob(b"c0ntent", overwrite=True)
    with pytest.raises(DamagedArtefact, match=r"sub/file\.txt was changed since it was published"):
        store.verify(made.ref)


def test_peek_brings_no_weights(store, other, azure):
    staged = store.staging_path(CALL)
    staged.mkdir(parents=True)
    (staged / "config.json").write_text("{}")
    for name in ("a.safetensors", "b.parquet"):
        with (staged / name).open("wb") as file:
            file.truncate((8 << 20) + 1)
    seal(staged, Manifest(CALL, hash_files(staged), {}))
    ref = store.publish(CALL, staged).ref
    peeked = other.peek(ref)
    assert [path.name for path in peeked.iterdir()] == ["config.json"]
    assert sorted(path.name for path in other.peek(ref, "b.parquet").iterdir()) == ["b.parquet", "config.json"]
    assert azure.traffic("GET", "blob", "safetensors") == []
    assert not other.directory(ref.kind, ref.identity).exists()
    assert other.fetch(ref) == other.peek(ref)


def test_of_two_machines_that_publish_at_once_one_wins(store, other):
    stores = [store, other]
    staged = [stage(one, text) for one, text in zip(stores, ("first", "second"), strict=True)]
    barrier = threading.Barrier(2)

    def publish(one, directory):
        barrier.wait()
        return one.publish(CALL, directory)

    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(publish, stores, staged))
    assert made[0] == made[1]
    assert not any(directory.exists() for directory in staged)
    texts = {(one.fetch(made[0].ref, content=True) / "sub" / "file.txt").read_text() for one in stores}
    assert len(texts) == 1
    folder = layout.artefact(CALL.step, CALL.identity)
    assert len([name for name in everything(store) if name.startswith(folder)]) == 4  # the loser's files are gone


def test_the_loser_of_a_race_gets_the_winners(store, other, monkeypatch):
    """Both look and find nothing, so both upload; the second PUT of the one blob is refused."""
    second = stage(other, "second")
    monkeypatch.setattr(Impatient, "find", lambda *_: None)
    first = store.publish(CALL, stage(store, "first"))
    assert other.publish(CALL, second) == first
    monkeypatch.undo()


def test_a_loser_whose_files_the_winner_removed_gets_the_winners(store, other, monkeypatch):
    staged = stage(other, "second")
    first = store.publish(CALL, stage(store, "first"))
    monkeypatch.setattr(Impatient, "find", lambda *_: None)
    monkeypatch.setattr("phi3_assets.resources.blob_store.upload_directory", lambda *_: None)
    assert other.publish(CALL, staged) == first


def test_what_killed_attempts_left_goes_with_the_first_that_is_published(store):
    left = f"{store.settings.prefix}/{layout.attempt(CALL.step, CALL.identity, 'killed')}/sub/file.txt"
    store.container.upload_blob(left, b"half")
    made = store.publish(CALL, stage(store))
    assert not [name for name in everything(store) if "killed" in name]
    store.verify(made.ref)


def test_a_service_that_is_away_costs_no_training(store, azure, monkeypatch):
    """It is waited for longer than a request is tried again: not at all here, for its client leaves 429 to us."""
    monkeypatch.setattr("phi3_assets.azure.errors.PAUSES_S", ())
    staged = stage(store)
    azure.fault(method="PUT", host="blob", path="sub/file.txt", status=429, times=4)
    made = store.publish(CALL, staged)
    assert [rule["used"] for rule in azure.faults()] == [4]
    store.verify(made.ref)


def test_a_publication_whose_answer_was_lost_is_ours(store, azure):
    azure.fault(method="PUT", host="blob", path=f"{CALL.identity}/manifest.json", kind="lost")
    made = store.publish(CALL, stage(store))
    assert [rule["used"] for rule in azure.faults()] == [1]
    store.verify(made.ref)


PUBLISHES = """
import sys
from pathlib import Path
from phi3_assets.resources.blob_store import BlobArtifactStore
from phi3_assets_tests.resources.store_contract import CALL, stage
store = BlobArtifactStore(home=sys.argv[1])
with store.claim(CALL):
    store.publish(CALL, stage(store))
"""


def test_a_publisher_that_was_killed_leaves_nothing_visible_and_the_next_goes_on(store, other, azure):
    azure.fault(method="PUT", host="blob", path=f"{CALL.identity}/manifest.json", times=-1, kind="stall", seconds=20)
    process = subprocess.Popen([sys.executable, "-c", PUBLISHES, str(store.home_path)])
    while not [name for name in everything(other) if name.endswith("/manifest.json")]:
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert other.find(CALL.step, CALL.identity) is None
    azure.clear()
    started = time.monotonic()
    with store.claim(CALL):  # by the same home: at once, though the lease lives
        made = store.publish(CALL, stage(store))
    assert time.monotonic() - started < 5
    assert azure.traffic("PUT", "blob", "sub/file.txt") == []  # it was there
    assert other.find(CALL.step, CALL.identity) == made


HOLDS = """
import sys
from phi3_assets_tests.resources.test_blob_store import Impatient, version
with Impatient(home=sys.argv[1]).claim(version(sys.argv[2]), run="0a1b2c3d-0000"):
    print("held", flush=True)
    sys.stdin.read()
"""


def version(number):
    """What a step of this version is to make."""
    return dataclasses.replace(CALL, code_version=number)


class Contender(threading.Thread):
    """Waits in this process for a claim that another process holds, as another machine would."""

    def __init__(self, store, other, number):
        super().__init__(daemon=True)
        command = [sys.executable, "-c", HOLDS, str(store.home_path), number]
        self.holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.holder.stdout.readline() == b"held\n"
        self.other, self.call, self.told, self.taken = other, version(number), [], []
        self.start()

    def run(self):
        with self.other.claim(self.call, self.told.append):
            self.taken.append(time.monotonic())


def test_a_claim_is_held_against_other_machines_and_falls_to_them_when_its_holder_is_killed(store, other):
    living, killed = Contender(store, other, "2"), Contender(store, other, "3")
    killed.holder.kill()
    killed_at = time.monotonic()
    time.sleep(17)  # longer than a lease: that of the living is renewed
    assert living.taken == []
    (told,) = living.told
    assert told.startswith(f"run 0a1b2c3d, which is making raw_dataset {living.call.identity[:16]} (process ")
    for contender in (living, killed):
        contender.holder.communicate()  # the living lets go
        contender.join(30)
        assert len(contender.taken) == 1
    assert killed.taken[0] - killed_at < 15 + 5


def test_a_claim_that_was_lost_is_noticed(store):
    """Its machine was cut off for longer than the lease lives, and another may have begun."""
    from azure.storage.blob import BlobLeaseClient

    blob = store.container.get_blob_client(f"{store.settings.prefix}/{layout.claim(CALL.step, CALL.identity)}")

    def taken_away():
        BlobLeaseClient(blob).break_lease(0)
        blob.acquire_lease(15)

    with pytest.raises(TransientError, match="was lost while it was held"), store.claim(CALL):
        taken_away()


def test_what_fails_under_a_claim_is_told_as_it_is(store):
    with pytest.raises(KeyError, match="mine"), store.claim(CALL):
        raise KeyError("mine")
    with store.claim(CALL, lambda who: pytest.fail(f"held by {who}")):
        pass


def upload_as_a_job_does(store, call, name, text="content"):
    staged = stage(store, text, call)
    upload_directory(
        store.container,
        f"{store.settings.prefix}/{layout.attempt(call.step, call.identity, name)}",
        staged,
        hash_files(staged),
    )


def test_a_jobs_upload_is_adopted(store, other):
    upload_as_a_job_does(store, CALL, "job-1")
    assert store.find(CALL.step, CALL.identity) is None
    made = store.adopt_attempt(CALL, "job-1")
    assert store.adopt_attempt(CALL, "job-1") == made
    assert other.attempt_path(made.ref) == layout.attempt(CALL.step, CALL.identity, "job-1")
    assert (other.fetch(made.ref, content=True) / "sub" / "file.txt").read_text() == "content"
    other.verify(made.ref)


def test_the_second_of_two_jobs_is_not_adopted(store):
    upload_as_a_job_does(store, CALL, "job-1", "first")
    upload_as_a_job_does(store, CALL, "job-2", "second")
    made = store.adopt_attempt(CALL, "job-1")
    assert store.adopt_attempt(CALL, "job-2") == made
    assert not [name for name in everything(store) if "job-2" in name]


def test_half_an_upload_is_not_adopted(store):
    folder = f"{store.settings.prefix}/{layout.attempt(CALL.step, CALL.identity, 'job-1')}"
    with pytest.raises(DamagedArtefact, match=r"manifest\.json is missing"):
        store.adopt_attempt(CALL, "job-1")
    upload_as_a_job_does(store, CALL, "job-1")
    another = StepCall(step="raw_dataset", code_version="2", params={}, inputs={}, libraries={})
    store.container.get_blob_client(f"{folder}/sub/file.txt").upload_blob(b"longer than it was", overwrite=True)
    with pytest.raises(DamagedArtefact, match="has 18 bytes, its manifest says 7"):
        store.adopt_attempt(CALL, "job-1")
    store.container.delete_blob(f"{folder}/sub/file.txt")
    with pytest.raises(DamagedArtefact, match="is missing"):
        store.adopt_attempt(CALL, "job-1")
    upload_as_a_job_does(store, another, "job-1")
    assert store.find(CALL.step, CALL.identity) is None


def test_another_steps_upload_is_not_adopted(store):
    staged = stage(store, call=StepCall(step="raw_dataset", code_version="2", params={}, inputs={}, libraries={}))
    folder = f"{store.settings.prefix}/{layout.attempt(CALL.step, CALL.identity, 'job-1')}"
    upload_directory(store.container, folder, staged, hash_files(staged))
    with pytest.raises(DamagedArtefact, match="is of identity"):
        store.adopt_attempt(CALL, "job-1")


def users_files(folder):
    return UserFiles(folder, digest_of(fingerprint(folder, "Dataset folder")))


def test_the_users_files_are_uploaded_once_per_content(store, other, azure):
    files = users_files(store.home_path / "datasets")
    path = store.put_user_files("datasets", files)
    assert list_folder(store.container, f"{store.settings.prefix}/{path}").keys() == {"codes.csv"}
    azure.clear()
    assert other.put_user_files("datasets", files) == path
    assert azure.traffic("PUT", "blob") == []
    (store.home_path / "datasets" / "codes.csv").write_text("other")
    assert store.put_user_files("datasets", users_files(store.home_path / "datasets")) != path


def test_files_that_changed_since_they_were_read_are_not_uploaded(store):
    files = users_files(store.home_path / "datasets")
    (store.home_path / "datasets" / "codes.csv").write_text("other")
    with pytest.raises(UserError, match="changed while the step was starting"):
        store.put_user_files("datasets", files)
    assert not [name for name in everything(store) if name.startswith("files/")]


def test_no_access_is_a_sentence_that_names_the_role(store, azure):
    assert store.container
    azure.fault(method="GET", host="blob", times=-1, status=403, code="AuthorizationPermissionMismatch")
    with pytest.raises(UserError, match="Storage Blob Data Contributor"):
        store.find(CALL.step, CALL.identity)


def test_a_container_that_is_gone_is_not_an_artefact_that_is_not_there(store, azure):
    assert store.container
    azure.fault(method="GET", host="blob", times=-1, status=404, code="ContainerNotFound")
    with pytest.raises(UserError, match=r"there is no such thing .*PHI3_AZURE_"):
        store.find(CALL.step, CALL.identity)


def test_settings_that_lack_a_workspace_are_named(home, monkeypatch, azure):
    azure.apply(monkeypatch)
    monkeypatch.delenv("PHI3_AZURE_WORKSPACE")
    with pytest.raises(UserError, match="PHI3_AZURE_WORKSPACE"):
        BlobArtifactStore(home=str(home)).find(CALL.step, CALL.identity)


def test_a_log_can_be_read_where_it_is_said_to_be(store, tmp_path):
    log = tmp_path / "worker.log"
    log.write_text("a line")
    made = store.publish(CALL, stage(store))
    assert store.keep_log(CALL, log) == store.where_log(made.ref)
    name = store.where_log(made.ref).removeprefix(f"{store.container.url}/")
    assert store.container.download_blob(name).readall() == b"a line"
    assert f"{store.container.url}/{store.settings.prefix}/{store.attempt_path(made.ref)}" == store.where(made.ref)
