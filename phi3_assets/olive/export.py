"""Writes a recipe as an Olive configuration of today, which plain `olive run --config` executes without this graph.

It fine-tunes, merges and quantises with the passes that the graph runs, on the same rows with the same masks in the
same order. With `lora_dropout: 0` and `gradient_accumulation_steps: 1` the adapter is the graph's within float
tolerance; dropout draws other masks, because Olive pads rows that the graph lets share their beginning, and Olive 0.13
weighs accumulated batches alike however many tokens they teach. Olive alone keeps the last adapter, where the graph
keeps the best on the rows of `eval_share`; it has no replay (`replay_share`), no recovery (`int4_recovery_steps`), and
no layer in 8 bits that `int4_budget` would pay for, since these are measured on the merged model.
"""

import json
from pathlib import Path
from typing import Any

from phi3_assets.core.recipe import Recipe
from phi3_assets.olive import configs, corpus
from phi3_assets.olive.configs import PASSES
from phi3_assets.olive.int4_configs import quantising_passes

CONFIG_FILE = "olive-config.json"
SCRIPT_FILE = "corpus_component.py"

# Olive imports it while it reads the configuration: before the adapter is created, which draws its first values.
_SCRIPT = '''"""Makes the tokenised corpus known to Olive, and sets the seed before the adapter is created."""

import transformers

from phi3_assets.olive.corpus import register

transformers.set_seed({seed})
register()
'''


def export_config(recipe: Recipe, base_model: Path, formatted_corpus: Path, target: Path, *, on_gpu: bool) -> Path:
    """Write olive-config.json and the script it needs.

    Args:
        recipe: The recipe.
        base_model: Directory of the artefact base_model.
        formatted_corpus: Directory of the artefact formatted_corpus.
        target: Directory to write to; Olive's output goes to `target`/output.
        on_gpu: Whether it will be run where there is a GPU.

    Returns:
        The configuration's path, for `olive run --config`.
    """
    target.mkdir(parents=True, exist_ok=True)
    script = target / SCRIPT_FILE
    script.write_text(_SCRIPT.format(seed=recipe.seed), encoding="utf-8")
    config = olive_config(recipe, base_model, formatted_corpus, target, on_gpu)
    # Keys keep their order: Olive runs passes as they stand.
    (target / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return target / CONFIG_FILE


def olive_config(
    recipe: Recipe, base_model: Path, formatted_corpus: Path, target: Path, on_gpu: bool
) -> dict[str, Any]:
    """The configuration itself; see `export_config`."""
    params = recipe.model_dump() | {"train_batch_rows": recipe.train_batch_rows}
    # Plain Olive is one process; accumulated batches give the same steps.
    params["gradient_accumulation_steps"] *= params["processes"]
    params["processes"] = 1
    train_file = formatted_corpus.resolve() / corpus.TRAIN_FILE
    script = str(target.resolve() / SCRIPT_FILE)
    model = {"type": "HfModel", "model_path": str(base_model.resolve()), "task": "text-generation"}
    data_configs = []
    passes: dict[str, dict[str, Any]] = {}
    if recipe.adapter_path:
        model["adapter_path"] = str(Path(recipe.adapter_path).expanduser().resolve())
        passes["merge"] = {"type": "MergeAdapterWeights"}
    elif recipe.method != "none":
        train = {
            **corpus.data_config(train_file, configs.corpus_order(params), params["eval_share"]),
            "user_script": script,
        }
        data_configs.append(train)
        passes["adapter"] = {
            "type": PASSES[recipe.method],
            **configs.fine_tuning(params, train["name"], None, on_gpu=on_gpu),
        }
        passes["merge"] = {"type": "MergeAdapterWeights"}
    context_length = json.loads((base_model / "config.json").read_text(encoding="utf-8"))["max_position_embeddings"]
    max_length = min(context_length, configs.MAX_LENGTH_TOKENS)
    # The base model's layers have the merged model's names and sizes.
    passes |= quantising_passes(base_model, params, max_length, train_file)
    if calibration := passes.get("gptq", {}).get("data_config"):
        calibration["user_script"] = script
    device = "gpu" if recipe.execution_provider == "cuda" else "cpu"
    accelerator = {"device": device, "execution_providers": [configs.PROVIDERS[recipe.execution_provider]]}
    return {
        "input_model": model,
        "systems": {"local": {"type": "LocalSystem", "accelerators": [accelerator]}},
        "data_configs": data_configs,
        "passes": passes,
        "host": "local",
        "target": "local",
        "evaluate_input_model": False,
        "cache_dir": str(target.resolve() / "cache"),
        "output_dir": str(target.resolve() / "output"),
    }
