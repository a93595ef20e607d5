"""`phi3 lineage`: from a release back to every source file; the terminal, the UI and the bundle say the same."""

import json
import shutil

import dagster as dg

from phi3_assets.core.files import hash_file
from phi3_assets.core.step import sha256_of
from phi3_assets.steps import STEPS


def test_from_a_release_to_every_file(made_home, phi3_here):
    """Months later somebody asks what a device was trained on."""
    told = json.loads(phi3_here("lineage", "--json", home=made_home))
    assert [one["kind"] for one in told["made"]] == list(STEPS)
    file = made_home / "datasets" / "codes.csv"
    (source,) = told["sources"]
    assert source == {"file": "codes.csv", "sha256": hash_file(file).sha256, "rows": 41, "readable_rows": 41}
    raw_dataset = told["made"][0]
    assert raw_dataset["inputs"]["datasets"] == sha256_of({"codes.csv": source["sha256"]})
    recipe = {name: value for one in told["made"] for name, value in one["recipe"].items()}
    assert recipe["base_model"] == "random:phi3-tiny"
    assert all(one["versions"]["python"] for one in told["made"])
    shown = phi3_here("lineage", home=made_home)
    assert source["sha256"] in shown
    assert "base_model=random:phi3-tiny" in shown


def test_the_ui_and_the_bundle_say_the_same(made_home, tmp_path, phi3_here):
    told = json.loads(phi3_here("lineage", "--json", home=made_home))
    digests = {one["kind"]: one["digest"] for one in told["made"]}
    with dg.DagsterInstance.from_config(str(made_home / ".dagster")) as instance:
        for name, digest in digests.items():
            event = instance.get_latest_materialization_event(dg.AssetKey(name))
            assert event.asset_materialization.tags["dagster/data_version"] == digest
        champion = instance.get_latest_materialization_event(dg.AssetKey("champion")).asset_materialization
    records = [record.data for record in champion.metadata["lineage"].records]
    assert {record["artefact"]: record["content"] for record in records} == digests
    (file,) = [record.data for record in champion.metadata["source files"].records]
    assert file == {"file": "codes.csv", "rows": 41, "content": told["sources"][0]["sha256"]}
    out = tmp_path / "bundle"
    phi3_here("bundle", "export", out, home=made_home)
    assert json.loads(phi3_here("lineage", out, "--json", home=made_home)) == told
    said = json.loads((out / "release.json").read_text())["made_of"]
    assert said.items() <= digests.items()


def test_a_home_that_moved_tells_the_same(copied_home, made_home, tmp_path, phi3_here):
    """Paths in manifests would point into the old home."""
    moved = tmp_path / "elsewhere" / "home"
    moved.parent.mkdir()
    copied_home.rename(moved)
    assert phi3_here("lineage", home=moved) == phi3_here("lineage", home=made_home)


def test_a_release_is_named_by_how_it_begins(made_home, phi3_here):
    identity = json.loads(phi3_here("lineage", "--json", home=made_home))["release"]["identity"]
    assert f"release {identity[:16]}" in phi3_here("lineage", identity[:6], home=made_home)
    refused = phi3_here("lineage", "nosuch", home=made_home, fails=True)
    assert f"'nosuch' names no releases of this product. Known are: {identity[:16]}." in refused


def test_what_is_gone_is_named(copied_home, phi3_here):
    """An artefact that was deleted takes what it was made of along; the rest is told all the same."""
    identity = json.loads(phi3_here("lineage", "--json", home=copied_home))["made"][2]["identity"]
    shutil.rmtree(copied_home / "fine-tuning" / "formatted_corpus" / identity[:16])
    told = json.loads(phi3_here("lineage", "--json", home=copied_home))
    assert told["gone"] == [f"formatted_corpus {identity[:16]}"]
    assert told["sources"] == []
    assert "stands no more; what it was made of is not known" in phi3_here("lineage", home=copied_home)


def test_a_bundle_that_says_otherwise_is_refused(copied_home, phi3_here):
    """release.json is inside the artefact, so whoever edits it there must be found out."""
    identity = json.loads(phi3_here("lineage", "--json", home=copied_home))["release"]["identity"]
    file = copied_home / "gen-model" / "release_bundle" / identity[:16] / "release.json"
    release = json.loads(file.read_text())
    release["made_of"]["base_model"] = "0" * 64
    file.write_text(json.dumps(release, indent=1, ensure_ascii=False) + "\n")
    assert "says that the release was made of base_model 0000" in phi3_here("lineage", home=copied_home, fails=True)
