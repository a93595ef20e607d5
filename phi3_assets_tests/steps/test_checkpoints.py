"""A training goes on from the last checkpoint that is whole, whatever happened to the others, and ends bit-equal.

A checkpoint that a full disk had cut off once failed its training at every start, for ever.
"""

import json
import shutil
from pathlib import Path

import pytest

from phi3_assets.core.sealing import seal
from phi3_assets.steps import LORA_ADAPTER
from phi3_assets.training import callback
from phi3_assets.training.checkpoints import drop_damaged
from phi3_assets_tests.harms import HARMS, cut, flip
from phi3_assets_tests.steps.alone import assert_same
from phi3_assets_tests.steps.conftest import RunStep
from phi3_assets_tests.steps.killing import SEVERAL_EPOCHS


class Killed(BaseException):
    """Ends the training as a kill would, as far as its files go."""


@pytest.fixture(scope="module")
def broken_off(inputs: dict[str, Path], run_step: RunStep, tmp_path_factory: pytest.TempPathFactory):
    """Work of a training that ended after its 8th step with checkpoints of 6 and 7, and the uninterrupted result."""
    work = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callback, "CHECKPOINT_S", 0.0)
        logged = callback.math.isfinite
        steps = iter(range(1, 100))

        def killed_at_8(loss: float) -> bool:
            if next(steps) == 8:
                raise Killed
            return logged(loss)

        patch.setattr(callback.math, "isfinite", killed_at_8)
        with pytest.raises(Killed):
            run_step(LORA_ADAPTER, inputs, work=work, **SEVERAL_EPOCHS)
    assert sorted(path.name for path in (work / "checkpoints").iterdir()) == ["checkpoint-6", "checkpoint-7"]
    return work, run_step(LORA_ADAPTER, inputs, **SEVERAL_EPOCHS).path


def files_of(work: Path, step: int = 7) -> list[Path]:
    return sorted((work / "checkpoints" / f"checkpoint-{step}").iterdir())


def test_any_damage_to_any_file_is_found(broken_off, tmp_path: Path) -> None:
    work, _ = broken_off
    names = [path.name for path in files_of(work)]
    assert {"adapter_model.safetensors", "optimizer.pt", "rng_state.pth", "scheduler.pt", "trainer_state.json"} < {
        *names
    }
    for name in names:
        for harm in HARMS:
            copy = shutil.copytree(work, tmp_path / f"{name}-{harm.__name__}")
            harm(copy / "checkpoints" / "checkpoint-7" / name)
            log: list[str] = []
            assert drop_damaged(copy / "checkpoints", log.append) == 6
            assert [path.name for path in (copy / "checkpoints").iterdir()] == ["checkpoint-6"]
            (line,) = log
            assert line.startswith("The checkpoint of step 7 is not resumed from: ")
            assert name in line or name == "sealed.json"


@pytest.mark.parametrize("name", ["optimizer.pt", "trainer_state.json"])
def test_the_one_before_is_resumed_and_ends_bit_equal(name, broken_off, inputs, run_step, tmp_path) -> None:
    work, uninterrupted = broken_off
    shutil.copytree(work, tmp_path / "work")
    cut(tmp_path / "work" / "checkpoints" / "checkpoint-7" / name)
    made = run_step(LORA_ADAPTER, inputs, work=tmp_path / "work", **SEVERAL_EPOCHS)
    assert made.metrics["resumed_from_step"] == 6
    assert "Resuming from the checkpoint of step 6" in made.log
    assert_same(uninterrupted, made.path)


def test_without_a_whole_one_training_starts_from_the_start(broken_off, inputs, run_step, tmp_path) -> None:
    work, uninterrupted = broken_off
    shutil.copytree(work, tmp_path / "work")
    for step in (6, 7):
        flip(tmp_path / "work" / "checkpoints" / f"checkpoint-{step}" / "adapter_model.safetensors")
    made = run_step(LORA_ADAPTER, inputs, work=tmp_path / "work", **SEVERAL_EPOCHS)
    assert made.metrics["resumed_from_step"] == 0
    assert "No checkpoint is whole: training starts from the start" in made.log
    assert_same(uninterrupted, made.path)


def write_checkpoint(folder: Path, step: int, best: int | None) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    (path / "trainer_state.json").write_text(json.dumps({"best_global_step": best}))
    seal(path, path.name)
    return path


def test_a_checkpoint_needs_the_best_one_too(tmp_path: Path) -> None:
    """The best adapter is taken up at the end of the training, which would fail there again and again."""
    for step, best in ((3, 3), (6, 3), (9, 9)):
        write_checkpoint(tmp_path, step, best)
    cut(tmp_path / "checkpoint-9" / "trainer_state.json")
    log: list[str] = []
    assert drop_damaged(tmp_path, log.append) == 6
    shutil.rmtree(tmp_path / "checkpoint-3")
    assert drop_damaged(tmp_path, log.append) is None
    assert log[-2:] == [
        "The checkpoint of step 6 is not resumed from: the best one so far is that of step 3, which is missing",
        "No checkpoint is whole: training starts from the start",
    ]


def test_one_that_took_anothers_place_is_not_resumed(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 3, None).rename(tmp_path / "checkpoint-6")
    (tmp_path / "checkpoint-tmp").mkdir()
    assert drop_damaged(tmp_path, lambda line: None) is None
    assert list(tmp_path.iterdir()) == []
