"""An exported configuration runs under plain `olive run` and trains the graph's own adapter."""

import os
import subprocess
import sys
from pathlib import Path

from phi3_assets.models.environment import SETTINGS
from phi3_assets.olive.export import export_config
from phi3_assets.steps import LORA_ADAPTER
from phi3_assets_tests.steps.conftest import Made, RunStep, tiny_recipe


def test_olive_run_reproduces_the_adapter(
    tiny_base: Made, tiny_corpus: Path, run_step: RunStep, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file

    inputs = {"base_model": tiny_base.path, "formatted_corpus": tiny_corpus}
    fields = {
        "num_train_epochs": 3.0,
        "per_device_train_batch_size": 4,
        "int4_algorithm": "gptq",
        "int4_symmetric": False,
        "int8_modules": ["o_proj"],
    }
    ours = run_step(LORA_ADAPTER, inputs, **fields)
    recipe = tiny_recipe(**fields)
    config = export_config(recipe, *inputs.values(), tmp_path, on_gpu=False)
    done = subprocess.run(
        [sys.executable, "-m", "olive", "run", "--config", str(config)],
        env={**os.environ, **SETTINGS, "HF_DATASETS_CACHE": str(tmp_path / "datasets")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "not part of" not in done.stdout + done.stderr  # no key of ours is one that Olive ignores
    (theirs,) = (tmp_path / "cache").rglob("adapter_model.safetensors")
    left, right = load_file(ours.path / "adapter_model.safetensors"), load_file(theirs)
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        torch.testing.assert_close(right[name], tensor, rtol=1e-3, atol=1e-5)
    assert list((tmp_path / "output").rglob("genai_config.json"))
