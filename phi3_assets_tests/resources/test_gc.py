"""`phi3 gc`: what nothing needs goes, whatever else is needed stays, also beside a run that goes on."""

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest

from phi3_assets.cli.runner import collect_garbage
from phi3_assets.core.errors import DamagedArtefact, UserError
from phi3_assets.core.home import work_dir
from phi3_assets.core.ledger import dump_json, product_key, run_key
from phi3_assets.core.manifest import ArtefactRef
from phi3_assets.core.step import StepCall
from phi3_assets.data.cache import DirectoryCache
from phi3_assets.ops.running import run_plan
from phi3_assets.release.champion import Champion
from phi3_assets.resources.execution import Execution
from phi3_assets.resources.gc import collect, find_garbage
from phi3_assets.resources.local_store import LocalArtifactStore
from phi3_assets.resources.pointers import latest, save_latest
from phi3_assets.worker.running import check_input
from phi3_assets.worker.step_file import StepInput
from phi3_assets_tests.conftest import clean_env
from phi3_assets_tests.resources.store_contract import stage
from phi3_assets_tests.tiny_graph import PHI3, TINY

YES = {"promote": True, "sentence": "Promoted: better."}


def publish(store: LocalArtifactStore, kind: str, number: int = 0, named: bool = True, **inputs: ArtefactRef):
    """An artefact; its manifest names its inputs' artefacts, or is as old as those that do not."""
    digests = {name: ref.digest for name, ref in inputs.items()}
    call = StepCall(step=kind, code_version="1", params={"number": number}, inputs=digests, libraries={})
    made = store.publish(call, stage(store, f"{kind} {number}", call)).ref
    shutil.rmtree(store.work_path(call))
    manifest = store.directory(kind, made.identity) / "manifest.json"
    if named:
        value = json.loads(manifest.read_text())
        value["made_from"] = {name: ref.to_dict() for name, ref in inputs.items()}
        manifest.write_text(json.dumps(value))
    (manifest.parent.parent / f"{manifest.parent.name}.log").write_text("log")
    return made


def retrain(store: LocalArtifactStore, number: int, named: bool = True) -> dict[str, ArtefactRef]:
    """A whole graph, as far as its artefacts go."""
    base = publish(store, "base_model", named=named)
    raw = publish(store, "raw_dataset", number, named)
    made = {"base_model": base, "raw_dataset": raw}
    for kind, inputs in (
        ("formatted_corpus", ("base_model", "raw_dataset")),
        ("lora_adapter", ("base_model", "formatted_corpus")),
        ("merged_model", ("base_model", "lora_adapter")),
        ("onnx_int4_model", ("merged_model",)),
        ("eval_report", ("onnx_int4_model", "formatted_corpus")),
        ("release_bundle", ("onnx_int4_model", "eval_report")),
    ):
        made[kind] = publish(store, kind, number, named, **{name: made[name] for name in inputs})
    for ref in made.values():
        point_to(store, ref)
    (store.home_path / "fine-tuning" / made["lora_adapter"].identity[:16]).mkdir(exist_ok=True)
    return made


PRODUCT = "desk"


def point_to(store: LocalArtifactStore, ref: ArtefactRef) -> None:
    """As the latest of its asset."""
    save_latest(store.ledger, ref.kind, {**ref.to_dict(), "product": PRODUCT, "planned": time.time()})


def champion_of(store: LocalArtifactStore) -> Champion:
    return Champion(store.ledger, PRODUCT)


def promote(store: LocalArtifactStore, made: dict[str, ArtefactRef], against: ArtefactRef | None = None) -> None:
    release, report = made["release_bundle"], made["eval_report"]
    champion_of(store).promote(release, report, YES, judged_against=against, check=lambda ref: None)


def standing(store: LocalArtifactStore) -> set[str]:
    return {path.parent.name for path in store.home_path.glob("*/*/*/manifest.json")}


def short(*graphs: dict[str, ArtefactRef]) -> set[str]:
    return {ref.identity[:16] for made in graphs for ref in made.values()}


@pytest.mark.parametrize("named", [True, False])
def test_a_rolled_back_champion_stays_and_refused_releases_go(store: LocalArtifactStore, named: bool) -> None:
    """With all that it was made of, in an old home whose manifests do not name it too."""
    first, second, refused, last = (retrain(store, number, named) for number in range(4))
    promote(store, first)
    promote(store, second, first["release_bundle"])
    champion_of(store).rollback("worse in the field", check=lambda ref: None)
    champion_of(store).refuse(refused["release_bundle"], refused["eval_report"], {"promote": False})
    assert find_garbage(store, keep_days=14) == []
    found = find_garbage(store, keep_days=0)
    gone = short(refused) - short(first, second, last)
    assert {item.path.name for item in found} == gone
    assert standing(store) == short(first, second, refused, last), "finding changes nothing"
    assert collect(store, found) == found
    assert standing(store) == short(first, second, last)
    assert not [path for path in store.home_path.rglob("*") if path.name.partition(".")[0] in gone and path.is_dir()]
    assert not list(store.home_path.glob("*/*/.gone-*"))
    assert find_garbage(store, keep_days=0) == [], "the second time there is nothing left"
    for made in (first, second, last):
        for ref in made.values():
            store.fetch(ref, content=True)


def test_leftovers_go_and_what_is_worked_on_stays(store: LocalArtifactStore) -> None:
    home = store.home_path
    made = retrain(store, 0)
    old = time.time() - 20 * 24 * 3600

    def write(path: Path, aged: bool = True) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x" * 1000)
        for one in (path, path.parent):
            os.utime(one, (old, old) if aged else None)
        return path

    abandoned = write(work_dir(home, "lora_adapter", "a" * 64) / "checkpoint")
    young = write(work_dir(home, "lora_adapter", "b" * 64) / "checkpoint", aged=False)
    finished = write(work_dir(home, "lora_adapter", made["lora_adapter"].identity) / "checkpoint", aged=False)
    half = write(young.parent / "staged-1234" / "model.safetensors", aged=False)
    aside = write(home / "gen-model" / "merged_model" / f"{'c' * 16}.no-manifest-12345678" / "notes.txt")
    gone = write(home / "gen-model" / "merged_model" / ".gone-1234" / "model.safetensors", aged=False)
    log = write(home / "gen-model" / "merged_model" / f"{'d' * 16}.log")
    page = write(home / "ledger" / "products" / PRODUCT / "decisions" / "x-y.html")
    cache = DirectoryCache(store.cache_path / "formatted_corpus" / "model")
    entry = cache.put("key", lambda folder: None)
    kept = cache.put("other", lambda folder: None)
    os.utime(entry, (0, 0))
    found = find_garbage(store, keep_days=14)
    expected = {abandoned.parent, finished.parent, half.parent, aside.parent, gone.parent, log, page}
    assert {item.path for item in found} == expected | {entry}
    assert collect(store, found) == found
    assert not any(path.exists() for path in expected | {entry})
    assert young.exists()
    assert kept.exists()
    assert standing(store) == short(made)


def test_what_is_claimed_stays(store: LocalArtifactStore) -> None:
    """Another process makes it right now, on old checkpoints."""
    call = StepCall(step="lora_adapter", code_version="1", params={}, inputs={}, libraries={})
    with store.claim(call):
        (store.work_path(call) / "checkpoint").write_text("x")
    found = find_garbage(store, keep_days=0)
    assert [item.path for item in found] == [store.work_path(call)]
    with store.claim(call):
        assert find_garbage(store, keep_days=0) == []
        assert collect(store, found) == []
        assert (store.work_path(call) / "checkpoint").exists()
    assert collect(store, found) == found


def test_what_a_run_took_up_since_it_was_found_stays(store: LocalArtifactStore) -> None:
    old, new = retrain(store, 0), retrain(store, 1)
    found = find_garbage(store, keep_days=0)
    assert {item.path.name for item in found} == short(old) - short(new)
    point_to(store, old["merged_model"])
    collect(store, found)
    kept = {name: old[name] for name in ("raw_dataset", "formatted_corpus", "lora_adapter", "merged_model")}
    assert standing(store) == short(new, kept)


def test_what_a_running_run_holds_stays_and_an_ended_ones_goes(
    store: LocalArtifactStore, tmp_path, monkeypatch
) -> None:
    """Also what it has just made, and not pointed to yet."""
    running, ended, newest = (retrain(store, number) for number in range(3))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.from_config(str(tmp_path / "dagster")) as instance:
        for made, status in ((running, dg.DagsterRunStatus.STARTED), (ended, dg.DagsterRunStatus.FAILURE)):
            run = instance.create_run_for_job(dg.job(name="job")(lambda: None), status=status)
            plan = {"call": {}, "inputs": {"merged_model": made["merged_model"].to_dict()}}
            store.ledger.write(run_key(f"{run.run_id}.json"), dump_json({"plan/result": plan}), None)
    made_since = publish(store, "onnx_int4_model", 3)
    collect(store, find_garbage(store, keep_days=0))
    kept = {name: running[name] for name in ("raw_dataset", "formatted_corpus", "lora_adapter", "merged_model")}
    assert standing(store) == short(newest, kept, {"made since": made_since})


def test_without_knowing_what_is_needed_nothing_goes(store: LocalArtifactStore) -> None:
    made = retrain(store, 0)
    path = Path(store.ledger.where(product_key(PRODUCT, "latest", "merged_model.json")))
    whole = path.read_text()
    path.write_text("{")
    with pytest.raises(DamagedArtefact, match=r"merged_model.json is damaged"):
        find_garbage(store, keep_days=0)
    path.write_text(whole)
    promote(store, made)
    Path(store.ledger.where(product_key(PRODUCT, "champion.json"))).write_text("{")
    with pytest.raises(DamagedArtefact, match=r"champion.json is damaged"):
        find_garbage(store, keep_days=0)


def test_a_damaged_manifest_is_left_alone(store: LocalArtifactStore) -> None:
    old, _ = retrain(store, 0), retrain(store, 1)
    path = store.directory("merged_model", old["merged_model"].identity)
    (path / "manifest.json").write_text("{")
    log: list[str] = []
    collect(store, find_garbage(store, 0, log.append))
    assert len(log) == 1
    assert log[0].startswith(f"Left alone: {path}")
    assert path.exists()


COLLECT = """
import sys, time
from phi3_assets.resources.gc import collect, find_garbage
from phi3_assets.resources.local_store import LocalArtifactStore
store = LocalArtifactStore(home=sys.argv[1])
until = time.monotonic() + float(sys.argv[2])
while time.monotonic() < until:
    collect(store, find_garbage(store, keep_days=0, log=lambda line: None))
"""


def test_several_at_once_beside_runs_that_make_things(store: LocalArtifactStore) -> None:
    """Two gc in processes of their own, without a pause, while graphs are made: the latest is always whole."""
    command = [sys.executable, "-c", COLLECT, str(store.home_path), "4"]
    collectors = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    number = 0
    while any(one.poll() is None for one in collectors):
        base = publish_claimed(store, "base_model", number)
        corpus = publish_claimed(store, "formatted_corpus", number, base_model=base)
        for ref in (base, corpus):
            store.fetch(ref, content=True)
        number += 1
    assert number > 3
    for one in collectors:
        assert one.communicate()[1] == ""
        assert one.returncode == 0
    collect(store, find_garbage(store, keep_days=0))
    assert standing(store) == {base.identity[:16], corpus.identity[:16]}


def publish_claimed(store: LocalArtifactStore, kind: str, number: int, **inputs: ArtefactRef) -> ArtefactRef:
    """As a run does: made and pointed to while it is claimed."""
    digests = {name: ref.digest for name, ref in inputs.items()}
    call = StepCall(step=kind, code_version="1", params={"number": number}, inputs=digests, libraries={})
    with store.claim(call):
        made = store.publish(call, stage(store, f"{kind} {number}", call)).ref
        point_to(store, made)
    return made


def test_beside_a_run(home: Path, store: LocalArtifactStore) -> None:
    """A real run of its own process, and gc without a pause: it ends well, and what it made stands."""
    retrain(store, 0)
    command = [*PHI3, "run", *TINY, "--to", "formatted_corpus", "--home", str(home)]
    with subprocess.Popen(command, env=clean_env(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        while run.poll() is None:
            collect(store, find_garbage(store, keep_days=0, log=lambda line: None))
            time.sleep(0.5)
        said = run.communicate()[0]
    assert run.returncode == 0, said
    collect(store, find_garbage(store, keep_days=0))
    for name in ("raw_dataset", "base_model", "formatted_corpus"):
        made = latest(store.ledger, "operations-desk", name)
        assert store.fetch(made, content=True).is_dir()


class Publishing(Execution):
    """Makes every step's artefact at once."""

    def run_step(self, context, call, inputs, store):
        return store.publish(call, stage(store, "anew", call))


def test_what_goes_under_a_plan_is_made_anew_or_said_to_be_gone(store: LocalArtifactStore) -> None:
    """The instant between a plan that reuses an artefact and its use; it must not end in a traceback."""
    call = StepCall(step="merged_model", code_version="1", params={}, inputs={}, libraries={})
    planned = store.publish(call, stage(store, "anew", call)).ref
    plan = {
        "call": call.to_dict(),
        "inputs": {},
        "recipe": "",
        "product": PRODUCT,
        "planned": 0.0,
        "reused": True,
        "why": "",
    }
    found = [item for item in find_garbage(store, keep_days=0) if item.ref == planned]
    assert collect(store, found) == found
    context = SimpleNamespace(run=SimpleNamespace(run_id="1234"), log=logging.getLogger(__name__))
    done = run_plan(context, plan, Publishing(), store)
    assert store.fetch(ArtefactRef(**done["ref"]), content=True).is_dir()
    path = store.fetch(planned)
    collect(store, found)
    with pytest.raises(UserError, match=r"merged_model \w+ is gone from .*Materialise merged_model again"):
        store.fetch(planned)
    with pytest.raises(UserError, match=r"Input 'merged_model' is gone from .*Run it again"):
        check_input("merged_model", StepInput(path=str(path), digest=planned.digest, artefact=planned))


def test_from_the_terminal(store: LocalArtifactStore, phi3_here: Callable[..., str], tmp_path: Path) -> None:
    retrain(store, 0)
    retrain(store, 1)
    listed = phi3_here("gc", "--keep-days", "0", home=store.home_path)
    assert "would go; nothing was removed. Remove them with: phi3 gc --delete" in listed
    assert listed.count("artefact") == 7
    assert "7 of 7 items" in phi3_here("gc", "--keep-days", "0", "--delete", home=store.home_path)
    with pytest.raises(UserError, match="There is no home at"):
        collect_garbage(tmp_path / "none", 14, delete=False)
