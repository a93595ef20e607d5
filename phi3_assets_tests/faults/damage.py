"""An artefact is harmed where it stands, or goes: by a disk, a sync program, a person."""

import shutil

from phi3_assets.core.errors import DamagedArtefact
from phi3_assets.core.manifest import read_manifest, verify
from phi3_assets_tests.faults.findings import GRAPH, STAGES
from phi3_assets_tests.faults.scene import MEASURES, Plan, Scene, end_of
from phi3_assets_tests.harms import HARMS, flip


def corrupted(plan: Plan) -> None:
    """Every harm to the largest file of each stage's artefact is seen; a run names the file and the way out."""
    scene = Scene(plan, "artefact corrupted")
    scene.all_is_made()
    for stage in STAGES:
        folder = scene.standing(stage)
        manifest = read_manifest(folder)
        name = max(manifest.files, key=lambda one: manifest.files[one].bytes)
        victim, whole = folder / name, scene.folder / "whole"
        shutil.copy(victim, whole)
        for harm in HARMS:
            harm(victim)
            try:
                verify(folder, manifest, content=True)
                scene.answer(stage, f"{harm.__name__} is seen", f"{name} passed for whole")
            except DamagedArtefact:
                scene.answer(stage, f"{harm.__name__} is seen")
            shutil.copy(whole, victim)
        flip(victim)
        code, said = scene.run()
        told = code == 1 and str(victim) in said and "materialise it again" in said and "Traceback" not in said
        scene.answer(stage, "refused, with the way out", "" if told else f"{code}, {end_of(said)}")
        scene.nothing_is_left(stage, folder)
        shutil.copy(whole, victim)
    code, said = scene.run()
    scene.ends_well(GRAPH, code, said)
    scene.made_once(said, made=set())
    scene.converged()


def deleted(plan: Plan) -> None:
    """An artefact of each stage is deleted: it is made anew, with the same bytes, and nothing that still fits is."""
    scene = Scene(plan, "artefact deleted")
    scene.all_is_made()
    for stage in STAGES:
        shutil.rmtree(scene.standing(stage))
        code, said = scene.run()
        scene.ends_well(stage, code, said)
        # A report holds seconds that were measured: it is another one, and so is the release that carries it.
        scene.made_once(said, made={stage, "release_bundle"} if stage in MEASURES else {stage}, stage=stage)
        scene.nothing_is_left(stage)
    scene.converged()
