"""Olive configurations come in whole: every key has a verdict, and the recipe trains what the file asked for."""

import json
from pathlib import Path
from typing import Any

import pytest

from phi3_assets.core.errors import UserError
from phi3_assets.core.recipe import Recipe
from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.olive.legacy import convert, import_config
from phi3_assets.olive.legacy_imported import Imported

CONFIGS = Path(__file__).parent / "configs"  # the Phi-3 CookBook's end-to-end example, Olive 0.6, as published
LORA, QLORA = CONFIGS / "cookbook-lora.json", CONFIGS / "cookbook-qlora.json"


def recipe_of(imported: Imported) -> Recipe:
    return imported.recipe()


def count_leaves(value: Any) -> int:
    """Values that are no mapping, counted without the code under test."""
    if isinstance(value, dict):
        return sum(count_leaves(inner) for inner in value.values())
    if isinstance(value, list) and value and isinstance(value[0], dict) and "device" not in value[0]:
        return sum(count_leaves(inner) for inner in value)
    return 1


@pytest.mark.parametrize("path", [LORA, QLORA])
def test_every_key_is_accounted_for(path: Path) -> None:
    imported = import_config(path)
    lines = [line for line in imported.report if line.verdict != "added"]
    assert len(lines) == count_leaves(json.loads(path.read_text()))
    assert imported.unknown == []
    assert all(line.why for line in imported.report)


def test_lora_trains_what_the_file_says() -> None:
    """Today's Olive would train it with alpha 16, on 1024 tokens, and on the test rows too."""
    recipe = recipe_of(import_config(LORA))
    assert recipe.method == "lora"
    assert (recipe.lora_r, recipe.lora_alpha, recipe.lora_dropout) == (64, 64, 0.1)
    assert recipe.target_modules == ["o_proj", "qkv_proj"]
    assert (recipe.max_seq_len, recipe.strategy, recipe.supervise) == (2048, "join", "all")
    assert (recipe.eval_share, recipe.eval_steps) == (0.1, 187)
    assert (recipe.max_steps, recipe.num_train_epochs) == (100, 1000)
    assert (recipe.per_device_train_batch_size, recipe.gradient_accumulation_steps) == (1, 4)
    assert (recipe.seed, recipe.data_seed) == (0, 42)
    assert (recipe.learning_rate, recipe.adam_beta2, recipe.max_grad_norm) == (1e-4, 0.999, 0.3)
    assert recipe.lr_scheduler_type == "constant"  # Olive's default; the recipe's own is linear
    assert recipe.text_template == "<|user|>\n{Question}<|end|>\n<|assistant|>\n{Best Answer}\n<|end|>"
    assert recipe.base_model_revision == load_recipe("phi3-mini-lora").base_model_revision
    assert recipe.execution_provider == "cuda"


def test_qlora_trains_what_the_file_says() -> None:
    recipe = recipe_of(import_config(QLORA))
    assert (recipe.method, recipe.quant_type, recipe.double_quant) == ("qlora", "nf4", True)
    assert recipe.compute_dtype == "bfloat16"
    assert (recipe.eval_share, recipe.max_steps) == (0.3, 10)
    assert recipe.target_modules == ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]


@pytest.mark.parametrize(("path", "name"), [(LORA, "phi3-mini-lora"), (QLORA, "phi3-mini-qlora")])
def test_shipped_recipes_hold_the_examples_values(path: Path, name: str) -> None:
    """They differ where the example loses: it learns prompts, joins rows until few are left, and rounds plainly."""
    imported, shipped = recipe_of(import_config(path)).model_dump(), load_recipe(name).model_dump()
    differing = {field for field in imported if imported[field] != shipped[field]}
    target_order = {"target_modules"} if name == "phi3-mini-qlora" else set()
    assert differing - target_order == {
        "text_template",
        "supervise",
        "strategy",
        "execution_provider",
        "max_new_tokens",
        "int4_algorithm",
        "int4_symmetric",
        "int4_recovery_steps",
        "test_set",
        "gradient_checkpointing",
        *({"logging_steps"} if name == "phi3-mini-lora" else set()),
    }


def test_a_configuration_of_today_comes_in_too() -> None:
    config = {
        "input_model": {"type": "HfModel", "model_path": "./mine", "task": "text-generation"},
        "systems": {
            "here": {"type": "LocalSystem", "accelerators": [{"execution_providers": ["CPUExecutionProvider"]}]}
        },
        "data_configs": [
            {
                "name": "train",
                "type": "HuggingfaceContainer",
                "load_dataset_config": {"data_name": "json", "data_files": "data/train.jsonl", "split": "train[:90%]"},
                "pre_process_data_config": {
                    "strategy": "line-by-line",
                    "max_seq_len": 300,
                    "add_special_tokens": False,
                },
            }
        ],
        "passes": {
            "a": [
                {"type": "DoRA", "r": 8, "alpha": 16, "training_args": {"train_sampling_strategy": "group_by_length"}}
            ],
            "b": {"type": "ModelBuilder", "precision": "int4", "int4_block_size": 16},
        },
        "target": "here",
        "output_dir": "out",
    }
    imported = convert(config)
    recipe = recipe_of(imported)
    assert imported.unknown == []
    assert (recipe.base_model, recipe.base_model_revision, recipe.dataset_path) == ("./mine", "", "data/")
    assert (recipe.method, recipe.lora_r, recipe.lora_alpha, recipe.max_seq_len) == ("dora", 8, 16, 300)
    assert (recipe.execution_provider, recipe.int4_block_size, recipe.group_by_length) == ("cpu", 16, True)


def test_key_that_no_rule_knows_is_reported_with_the_nearest() -> None:
    imported = convert({"passes": {"lora": {"type": "LoRA", "lora_dropuot": 0.1}}})
    (line,) = imported.unknown
    assert line.key == "passes.lora.lora_dropuot"
    assert "Did you mean 'passes.lora.lora_dropout'" in line.why


def test_report_and_recipe_can_be_read() -> None:
    imported = import_config(LORA)
    assert "| passes.lora.config.eval_dataset_size | renamed | recipe field eval_share" in imported.report_markdown()
    assert imported.recipe_yaml("phi3 run --recipe mine.yaml").startswith("# phi3 run --recipe mine.yaml\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "not valid JSON"),
        ("[]", "must be a mapping"),
        (None, "No such file"),
        ('{"subscription_id": "a", "workspace_name": "b"}', "is none: it has 'subscription_id', 'workspace_name', but"),
        ('{"passes": {"a": {"r": 1, "r": 2}}}', "'r' stands more than once"),
        ("[" * 3000, "nested too deeply"),
        ('{"passes":' * 90 + "{" + "}" * 91, "more than 64 levels deep"),
    ],
)
def test_file_that_is_no_configuration_is_refused(text: str | None, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "olive-config.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=expected):
        import_config(path)
