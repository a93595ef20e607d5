"""Before a training starts: the estimate holds, what cannot fit is refused, the dry run leaves no trace."""

import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from phi3_assets.core import cgroups, memory
from phi3_assets.core.errors import TransientError, UserError
from phi3_assets.core.forecast import TOLERANCE
from phi3_assets.core.recipe_file import RECIPES_DIR, load_recipe
from phi3_assets.models import environment
from phi3_assets.olive.corpus import CorpusRows
from phi3_assets.steps import LORA_ADAPTER
from phi3_assets.training import forecast
from phi3_assets.training.adapter import out_of_memory
from phi3_assets.training.estimate import BatchShape, estimate
from phi3_assets_tests.headers import headers_alone
from phi3_assets_tests.steps.conftest import RunStep, tiny_recipe

environment.prepare()
GIB = 2**30


def params(**overrides: Any) -> dict[str, Any]:
    recipe = tiny_recipe(**overrides)
    return LORA_ADAPTER.params(recipe) | LORA_ADAPTER.settings(recipe)


def rows_of(*lengths: int) -> CorpusRows:
    import torch

    offsets = [sum(lengths[:number]) for number in range(len(lengths) + 1)]
    tokens = torch.arange(offsets[-1])
    return CorpusRows(tokens, tokens, offsets, list(range(len(lengths))))


def test_largest_batch_is_the_one_with_most_tokens_after_padding() -> None:
    found = forecast.largest_batch(rows_of(10, 10, 3, 12, 9, 1), size=2)
    assert [len(row["input_ids"]) for row in found.rows] == [3, 12]
    assert found.batches == pytest.approx((20 + 24 + 18) / 24)
    assert [len(row["input_ids"]) for row in forecast.largest_batch(rows_of(1, 2, 50), size=2).rows] == [50]


MEASURE = """
import json, sys
from pathlib import Path
from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.core.step import StepContext
from phi3_assets.steps import LORA_ADAPTER

root, base, corpus, overrides = *map(Path, sys.argv[1:4]), json.loads(sys.argv[4])
recipe = load_recipe("tiny-test", overrides)
for name in ("output", "work", "cache"):
    (root / name).mkdir()
metrics = LORA_ADAPTER.load()(
    StepContext(
        params=LORA_ADAPTER.params(recipe), settings=LORA_ADAPTER.settings(recipe),
        inputs={"base_model": base, "formatted_corpus": corpus},
        output=root / "output", work=root / "work", cache=root / "cache",
    )
)
print(metrics["estimated_memory_bytes"] / metrics["peak_memory_bytes"])
"""


def test_estimate_is_within_its_factor(inputs: dict[str, Path], tmp_path: Path) -> None:
    """In a process of its own, as the worker's, whose memory is not that of the tests before."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path, inputs["base_model"], inputs["formatted_corpus"], '{"max_steps": 2}'],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert 1 / TOLERANCE < float(done.stdout.splitlines()[-1]) < TOLERANCE


def test_estimate_and_dry_run_are_told(inputs: dict[str, Path], run_step: RunStep) -> None:
    made = run_step(LORA_ADAPTER, inputs)
    told = "\n".join(made.log)
    assert re.search(r"Estimate: \d.* of memory \(base model .* of disk", told)
    assert re.search(r"Dry run of the largest batch: \d.* at most, .* the training will take \d+ s to \d+ s, ", told)
    assert made.metrics["estimated_seconds"] > 0
    assert made.metrics["estimated_disk_bytes"] > 12 * made.metrics["trainable_parameters"]


def test_too_little_memory_is_refused_before_the_model_is_loaded(inputs, run_step, monkeypatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 50 * 2**20)
    monkeypatch.setattr(forecast.Forecast, "dry_run", lambda *_: pytest.fail("the model was loaded"))
    with pytest.raises(UserError) as refused:
        run_step(LORA_ADAPTER, inputs)
    text = str(refused.value)
    assert re.match(
        r"Training needs about .* of memory \(base model .*\), and of this machine's .* are available", text
    )
    assert "per_device_train_batch_size: 8 with gradient_accumulation_steps: 2 (the same training" in text
    assert "gradient_checkpointing: true" in text
    assert "a lower max_seq_len" in text
    assert "method: qlora" in text


def test_dry_run_that_shows_too_little_memory_is_refused(inputs, run_step, monkeypatch) -> None:
    """The estimate found room, and the batch itself shows that there is none."""
    monkeypatch.setattr(forecast.Forecast, "refuse_if_too_large", lambda *_: None)
    monkeypatch.setattr(memory, "available_bytes", lambda: -100 * GIB)
    with pytest.raises(UserError, match=r"by a dry run, and of this machine's .*Set per_device_train_batch_size: 8"):
        run_step(LORA_ADAPTER, inputs)


def test_too_little_disk_is_refused(inputs, run_step, monkeypatch) -> None:
    usage = forecast.shutil.disk_usage("/")
    monkeypatch.setattr(forecast.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(UserError, match=r"needs about .* of disk for checkpoints .* 0 MiB free.*lower lora_r"):
        run_step(LORA_ADAPTER, inputs)


def test_dry_run_leaves_no_trace(inputs, run_step, monkeypatch) -> None:
    """Dropout draws from the same generator as the training."""
    with_it = run_step(LORA_ADAPTER, inputs, lora_dropout=0.1)
    monkeypatch.setattr(forecast.Forecast, "dry_run", lambda *_: None)
    without = run_step(LORA_ADAPTER, inputs, lora_dropout=0.1)
    for path in with_it.path.iterdir():
        assert (without.path / path.name).read_bytes() == path.read_bytes(), path.name


def test_random_states_are_kept() -> None:
    import numpy as np
    import torch

    def draw() -> tuple[float, ...]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with forecast.kept_random_states():
        drawn = draw()
    assert draw() == drawn


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"per_device_train_batch_size": 8}, "per_device_train_batch_size: 4 with gradient_accumulation_steps: 2"),
        ({"per_device_train_batch_size": 3}, "per_device_train_batch_size: 1 with gradient_accumulation_steps: 3"),
        ({"per_device_train_batch_size": 1}, "Set gradient_checkpointing: true"),
        (
            {"per_device_train_batch_size": 1, "gradient_checkpointing": True, "method": "qlora"},
            "Set a lower max_seq_len.",
        ),
    ],
)
def test_what_to_lower_names_what_is_left(fields: dict[str, Any], expected: str) -> None:
    assert expected in memory.what_to_lower(params(**fields))


def test_real_error_of_the_allocator_says_how_much(inputs: dict[str, Path]) -> None:
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.uint8)
    error = out_of_memory(caught.value, params())
    assert re.search(
        r"host's memory is full: this process held .*, and of .* were available, too few for 1125899906842624 bytes "
        r"more\. Set per_device_train_batch_size: 8",
        str(error),
    )
    assert out_of_memory(RuntimeError("shapes differ"), params()) is None
    assert "memory is full" in str(out_of_memory(MemoryError(), params()))


@pytest.mark.parametrize(("held", "available", "expected"), [(6, 8, UserError), (6, 1, TransientError)])
def test_memory_that_neighbours_hold_may_be_free_later(
    held: int, available: int, expected: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that fits was given up for good because of another program of that hour."""
    monkeypatch.setattr(memory, "held_bytes", lambda: held * 2**30)
    monkeypatch.setattr(memory, "available_bytes", lambda: available * 2**30)
    monkeypatch.setattr(memory, "total_bytes", lambda: 16 * 2**30)
    assert type(out_of_memory(MemoryError(), params())) is expected


def cgroup(root: Path, monkeypatch: pytest.MonkeyPatch, line: str, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "self").write_text(line)
    monkeypatch.setattr(cgroups, "ROOT", root)
    monkeypatch.setattr(cgroups, "OWN", root / "self")


def test_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 2: the limit stands above the process's own group; pages of files can be given back."""
    files = {
        "a/memory.max": f"{3 * GIB}\n",
        "a/memory.current": f"{2 * GIB}\n",
        "a/memory.stat": f"anon 5\ninactive_file {GIB // 2}\n",
        "a/b/memory.max": "max\n",
    }
    cgroup(tmp_path, monkeypatch, "0::/a/b\n", files)
    assert memory.total_bytes() == 3 * GIB
    assert memory.available_bytes() == GIB * 3 // 2


def test_limit_of_an_old_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 1, seen from inside: the path is the host's, the limit stands at the root."""
    files = {
        "memory/memory.limit_in_bytes": f"{2 * GIB}\n",
        "memory/memory.usage_in_bytes": f"{GIB}\n",
        "memory/memory.stat": "total_inactive_file 0\n",
    }
    cgroup(tmp_path, monkeypatch, "4:memory:/docker/0123\n3:cpuset:/\n", files)
    assert memory.total_bytes() == 2 * GIB
    assert memory.available_bytes() == GIB


@pytest.mark.parametrize(
    ("recipe", "checkpointing", "card_gb"),
    [
        ("phi3-mini-qlora", True, 8),
        ("phi3-mini-lora", True, 16),
        ("phi3-mini-qlora", False, 24),
        ("phi3-mini-lora", False, 24),
    ],
)
def test_recipes_promise_what_the_forecast_says(recipe: str, checkpointing: bool, card_gb: int, tmp_path: Path) -> None:
    """They promised 8 and 16 GB for what was reckoned at 16.5 and 17.1 GiB; a tenth of a card is the driver's."""
    shipped = load_recipe(recipe)
    assert shipped.gradient_checkpointing
    text = (RECIPES_DIR / f"{recipe}.yaml").read_text(encoding="utf-8")
    headers_alone(tmp_path / "model", "phi3-mini")
    given = {name: getattr(shipped, name) for name in type(shipped).model_fields}
    needed = estimate(
        tmp_path / "model",
        AutoConfig.from_pretrained(tmp_path / "model"),
        {**given, "gradient_checkpointing": checkpointing},
        BatchShape(shipped.max_seq_len, shipped.max_seq_len, masked=False),
        held=0,
        on_gpu=True,
    ).memory
    assert needed < 0.9 * card_gb * 1e9
    assert f"{card_gb} GB" in text
    assert f"{needed / 2**30:.1f}" in text
