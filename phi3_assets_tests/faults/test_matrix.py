"""The matrix goes red: each question is asked of a home in which its answer is wrong on purpose."""

import re
import shutil
import subprocess
import sys

import pytest

from phi3_assets.core.manifest import MANIFEST
from phi3_assets_tests.faults import scene as scenes
from phi3_assets_tests.faults.__main__ import FAULTS, seed
from phi3_assets_tests.faults.findings import GRAPH, STAGES, Findings
from phi3_assets_tests.faults.scene import Plan, Scene
from phi3_assets_tests.harms import flip
from phi3_assets_tests.servers import ROOT


@pytest.fixture
def plan(made_home, tmp_path):
    folder = tmp_path / "faults"
    folder.mkdir()
    return Plan(folder, made_home, runs=1, seed=0, findings=Findings())


@pytest.fixture
def scene(plan):
    scene = Scene(plan, "a fault")
    scene.all_is_made()
    return scene


def wrong(plan):
    return [(one.stage, one.asked) for one in plan.findings.red]


def test_a_home_to_which_nothing_happened_is_green(scene, plan):
    scene.nothing_is_left(GRAPH)
    scene.converged()
    scene.made_once("", made=set())
    assert wrong(plan) == []
    assert re.search(r"a fault( +1){8} +3\n", plan.findings.matrix())


def test_an_artefact_that_was_published_before_it_was_whole(scene, plan):
    (scene.standing("merged_model") / MANIFEST).unlink()
    scene.nothing_is_left("merged_model")
    assert wrong(plan) == [("merged_model", "no half artefact")]


def test_an_artefact_that_is_not_what_it_says(scene, plan):
    flip(next(scene.standing("lora_adapter").glob("*.safetensors")))
    scene.nothing_is_left("lora_adapter")
    assert wrong(plan) == [("lora_adapter", "no half artefact")]
    scene.nothing_is_left("lora_adapter", scene.standing("lora_adapter"))
    assert len(wrong(plan)) == 1


def test_a_worker_that_goes_on(scene, plan, monkeypatch):
    monkeypatch.setattr(scenes, "gone", lambda processes: not processes)
    log = scene.home / "work" / "lora_adapter" / "x" / "worker.log"
    log.parent.mkdir(parents=True)
    with log.open("w") as file, subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1, stdout=file) as orphan:
        scene.nothing_is_left("lora_adapter")
        orphan.kill()
    assert wrong(plan) == [("lora_adapter", "no orphan")]


def test_other_bytes_and_none(scene, plan):
    shutil.rmtree(scene.home / "ledger")
    scene.converged("raw_dataset", "eval_report")
    assert wrong(plan) == [("raw_dataset", "the same digest"), ("eval_report", "the same digest")]


@pytest.mark.parametrize(
    "told", ["", "Step raw_dataset 0a runs in process 1\n" * 2, "Step merged_model 0a runs in process 1"]
)
def test_a_step_that_was_lost_doubled_or_not_asked_for(scene, plan, told):
    scene.made_once(told, made={"raw_dataset"})
    assert wrong(plan) == [(GRAPH, "nothing lost, nothing doubled")]


def test_a_run_that_fails(scene, plan):
    scene.ends_well(GRAPH, 1, "FAILED at lora_adapter")
    assert plan.findings.red[0].wrong.endswith("FAILED at lora_adapter")
    assert re.search(r"a fault( +\.){8} +RED 1\n", plan.findings.matrix())
    assert "1 answers, 0 right, 1 wrong." in plan.findings.matrix()


def test_a_fault_that_is_not_told_to_its_end(plan):
    def breaks(_plan):
        raise AssertionError("the server did not come up")

    seed("webserver", breaks, plan)
    assert wrong(plan) == [(GRAPH, "told to its end")]


def test_what_cannot_be_asked_here_is_said_and_is_neither_right_nor_wrong(scene, plan):
    scene.answer(GRAPH, "the fault", skipped="no right to mount")
    assert wrong(plan) == []
    assert "skipped  a fault: no right to mount\n0 answers, 0 right" in plan.findings.matrix()


def test_every_fault_says_what_it_does_and_the_command_lists_them():
    command = [sys.executable, "-m", "phi3_assets_tests.faults", "--list"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in said.splitlines()] == list(FAULTS)
    assert all(len(line.split()) > 4 for line in said.splitlines())
    assert len(STAGES) == 8
