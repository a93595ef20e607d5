"""Configurations as they are found: forms of Olive 0.4 to 0.13, templates, other hardware. None ends in a traceback.

43 of 645 of Microsoft's own recipes did, where an object or a list stood in the place of a name; others had values that
were "kept" and refused by the first run, or a hub dataset that was dropped while the shipped sample was trained on.
The files in configs/wild are ours, with the forms that such configurations have.
"""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phi3_assets.core.errors import UserError
from phi3_assets.core.recipe import Recipe
from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.olive.legacy import convert, import_config
from phi3_assets.olive.legacy_data import FOLDER
from phi3_assets.olive.legacy_file import read_config
from phi3_assets.olive.legacy_imported import Imported
from phi3_assets.olive.legacy_model import MODEL
from phi3_assets.olive.legacy_passes import known_passes

CONFIGS = Path(__file__).parent / "configs"
WILD = sorted((CONFIGS / "wild").iterdir())
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def wild(name: str) -> Imported:
    return import_config(CONFIGS / "wild" / name)


def told(imported: Imported, key: str) -> tuple[str, str]:
    (line,) = [line for line in imported.report if line.key == key]
    return line.verdict, line.why


def key_paths(value: Any, path: tuple[str, ...] = ()) -> list[str]:
    """Every key of every mapping at any depth, as the report names it, found without the code under test."""
    if isinstance(value, dict):
        return [
            one for name, inner in value.items() for one in (".".join((*path, name)), *key_paths(inner, (*path, name)))
        ]
    if isinstance(value, list) and path[-1:] != ("accelerators",):
        return [one for number, inner in enumerate(value) for one in key_paths(inner, (*path, str(number)))]
    return []


def check(config: dict[str, Any], imported: Imported) -> None:
    """What holds of every import, whatever was read."""
    keys = [line.key for line in imported.report]
    for path in key_paths(config):
        assert any(key == path or key.startswith(f"{path}.") for key in keys), path
    assert all(line.why for line in imported.report)
    imported.report_markdown().encode()
    recipe = imported.recipe()
    # Neither the sample nor the default model is ever what silence stands for.
    assert imported.values["dataset_path"]
    assert imported.values["base_model"]
    for name, value in imported.values.items():
        assert name in imported.missing or getattr(recipe, name) == value


def run_reads(imported: Imported, folder: Path, **filled_in: str) -> Recipe:
    """What `phi3 run --recipe ... --set ...` makes of the file that is written."""
    path = folder / "mine.yaml"
    path.write_text(imported.recipe_yaml("phi3 run"), encoding="utf-8")
    return load_recipe(str(path), dict(filled_in))


@pytest.mark.parametrize("path", WILD, ids=lambda path: path.name)
def test_every_form_becomes_a_recipe_that_runs_or_asks(path: Path, tmp_path: Path) -> None:
    imported = import_config(path)
    check(read_config(path), imported)
    if imported.missing:
        with pytest.raises(UserError, match=r"base_model|dataset_path|method"):
            run_reads(imported, tmp_path)
    answers = {"base_model": "./base", "base_model_revision": COMMIT, "dataset_path": "./data", "method": "lora"}
    recipe = run_reads(imported, tmp_path, **{name: answers[name] for name in imported.missing})
    assert recipe.dataset_path not in ("", FOLDER)


def test_olive_0_4_comes_in_whole(tmp_path: Path) -> None:
    imported = wild("olive-0.4-hub.json")
    assert imported.unknown == []
    recipe = imported.recipe()
    assert (recipe.method, recipe.lora_r, recipe.adam_beta2, recipe.learning_rate) == ("qlora", 8, 0.99, 2e-4)
    assert (recipe.max_seq_len, recipe.strategy, recipe.dataset_shape) == (512, "line-by-line", "text")
    assert (recipe.execution_provider, recipe.compute_dtype) == ("cuda", "bfloat16")
    assert told(imported, "passes.tune.config.compute_dtype")[0] == "replaced"
    assert "256 rows; a recipe holds out a share" in told(imported, "passes.tune.config.eval_dataset_size")[1]


def test_a_hub_dataset_is_pinned_or_asked_for(tmp_path: Path) -> None:
    """It was dropped, and the run trained on the shipped sample."""
    imported = wild("olive-0.4-hub.json")
    assert imported.values["dataset_path"] == "hf:acme/desk-chats@<commit>"
    with pytest.raises(UserError, match=re.escape("'hf:acme/desk-chats@<commit>', what is meant in place of <commit>")):
        run_reads(imported, tmp_path, base_model_revision=COMMIT)
    assert (
        "# To be filled in: dataset acme/desk-chats of the hub must be pinned" in (tmp_path / "mine.yaml").read_text()
    )
    pinned = wild("train.yaml")
    assert pinned.values["dataset_path"] == f"hf:acme/desk-chats@{COMMIT}"
    assert list(pinned.missing) == ["base_model_revision"]
    assert run_reads(pinned, tmp_path, base_model_revision=COMMIT).warmup_steps == 5


def test_only_the_data_that_is_trained_on_counts() -> None:
    """The last data config won: calibration on wikitext made the corpus rows of 4096 tokens."""
    imported = wild("olive-0.7-flows.json")
    assert imported.unknown == []
    recipe = imported.recipe()
    assert (recipe.dataset_path, recipe.max_seq_len, recipe.strategy) == ("desk/", 1024, "line-by-line")
    assert (recipe.question_column, recipe.answer_column) == ("prompt", "response")
    assert told(imported, "data_configs.0.load_dataset_config.data_name")[0] == "dropped"


def test_of_several_trainings_and_alternatives_one_is_taken_and_the_others_are_told() -> None:
    imported = wild("olive-0.7-flows.json")
    recipe = imported.recipe()
    assert (recipe.method, recipe.lora_r, recipe.base_model) == ("lora", 4, "./model-cache/acme/base-1b")
    assert "trains once, here with the pass l" in told(imported, "passes.q.0.type")[1]
    assert "a recipe has one, the first" in told(imported, "passes.l.1.r")[1]


def test_fields_that_contradict_each_other_are_settled_and_told() -> None:
    """`kept`, and then refused by the first run: k_quant needs an asymmetric grid."""
    passes = {"m": {"type": "ModelBuilder", "int4_algo_config": "k_quant_last", "int4_is_symmetric": True}}
    imported = convert({"input_model": {"model_path": "./x"}, "passes": passes})
    assert told(imported, "passes.m.int4_is_symmetric")[0] == "refused"
    assert imported.recipe().int4_symmetric is False


def test_objects_where_names_are_expected() -> None:
    imported = wild("inline-objects.json")
    assert imported.unknown == []
    recipe = imported.recipe()
    assert (recipe.base_model, recipe.dataset_path, recipe.dataset_shape) == ("./base", "rows/", "messages")
    assert (recipe.method, recipe.execution_provider) == ("dora", "cpu")
    why = [line.why for line in imported.report if line.why.startswith("execution_provider")]
    assert why == ["execution_provider: cpu; a recipe's model runs on cpu or cuda, not on OpenVINOExecutionProvider"]


def test_gptq_is_the_recipe_s_gptq() -> None:
    recipe = wild("mixed-bits.json").recipe()
    assert (recipe.int4_algorithm, recipe.int4_block_size, recipe.int4_symmetric) == ("gptq", 128, False)
    assert recipe.method == "none"  # nothing trains; the default would


def test_what_a_recipe_cannot_say_is_asked_for() -> None:
    imported = wild("other-adapter.json")
    refused = {line.key for line in imported.unknown}
    assert {"passes.k.type", "data_configs.0.load_dataset_config.type"} <= refused
    assert "a recipe has no LoKr" in imported.missing["method"]
    assert told(imported, "data_configs.0.load_dataset_config.params.language")[1].startswith("a parameter of code")
    assert wild("other-model.json").values["base_model"] == MODEL


def test_holes_of_a_template_are_no_values() -> None:
    imported = wild("template.json")
    assert "passes.q.training_args.max_steps" in {line.key for line in imported.unknown}
    assert imported.recipe().logging_steps == 10
    assert "lora_r" in imported.values  # Olive's default, said so
    assert set(imported.missing) == {"base_model", "dataset_path"}


@pytest.mark.parametrize(
    ("load", "address"),
    [
        ({"data_name": "json", "data_files": "a/b.jsonl"}, "a/"),
        ({"data_name": "json", "data_files": "/abs/b.jsonl"}, "/abs/"),
        ({"data_name": "json", "data_files": "a/*.jsonl"}, "a/"),
        ({"data_name": "csv", "data_files": [".\\data\\a.csv", ".\\data\\b.csv"]}, "./data/"),
        ({"data_name": "csv", "data_dir": "rows"}, "rows/"),
        ({"data_name": "csv", "data_files": {"type": "local_file", "config": {"path": "r/x.csv"}}}, "r/"),
        ({"data_name": "./rows"}, "./rows/"),
        ({"data_name": "acme/rows", "revision": COMMIT}, f"hf:acme/rows@{COMMIT}"),
        ({"data_name": "json", "data_files": "hf://datasets/acme/rows/x.json"}, "hf:acme/rows@<commit>"),
        ({"data_name": "json", "data_files": "abfs://c/desk/x.json"}, "abfs://c/desk/"),
        ({"data_name": "json", "data_files": "b.jsonl"}, FOLDER),
        ({"data_name": "json", "data_files": ["a/x.json", "b/y.json"]}, FOLDER),
        ({"data_name": "json", "data_files": "https://example.com/x.json"}, FOLDER),
        ({"data_name": "json", "data_files": "https://example.com/x.json?sig=abc"}, FOLDER),
        ({"data_name": "wikitext"}, FOLDER),
        ({"data_name": "<name>"}, FOLDER),
        ({"data_files": 7}, FOLDER),
    ],
)
def test_where_the_data_is(load: dict[str, Any], address: str) -> None:
    config = {
        "input_model": {"model_path": "./x"},
        "data_configs": [{"name": "d", "load_dataset_config": load}],
        "passes": {"l": {"type": "LoRA", "train_data_config": "d"}},
    }
    imported = convert(config)
    check(config, imported)
    assert imported.values["dataset_path"] == address
    assert ("dataset_path" in imported.missing) == ("<" in address)


@pytest.mark.parametrize(
    ("input_model", "base_model", "revision"),
    [
        ({"model_path": "acme/m", "load_kwargs": {"revision": COMMIT}}, "acme/m", COMMIT),
        ({"model_path": "acme/m", "load_kwargs": {"revision": "main"}}, "acme/m", ""),
        ({"model_path": "models/acme/m"}, "./models/acme/m", ""),
        ({"model_path": "models\\m"}, "./models/m", ""),
        ({"model_path": {"type": "azureml_registry_model", "config": {"name": "m"}}}, MODEL, ""),
        ({"model_path": {"type": "string_name", "name": "acme/m"}}, "acme/m", ""),
        ({"type": "ONNXModel", "model_path": "m.onnx"}, MODEL, ""),
        ({"model_path": "azureml://registries/r/models/m"}, MODEL, ""),
        ({"model_path": "gpt2"}, MODEL, ""),
        ({"model_path": None}, MODEL, ""),
        (None, MODEL, ""),
        (["acme/m"], MODEL, ""),
    ],
)
def test_what_training_starts_from(input_model: Any, base_model: str, revision: str) -> None:
    imported = convert({"input_model": input_model, "passes": {}})
    assert (imported.values["base_model"], imported.values["base_model_revision"]) == (base_model, revision)


@pytest.mark.parametrize(
    ("key", "value", "verdict"),
    [
        ("r", 8.0, "renamed"),
        ("r", "8", "replaced"),
        ("r", [8, 16], "refused"),
        ("r", {"a": 1}, "unknown"),
        ("r", True, "refused"),
        ("r", None, "dropped"),
        ("r", "SEARCHABLE_VALUES", "refused"),
        ("r", "<lora_r>", "refused"),
        ("alpha", float("inf"), "refused"),
        ("lora_dropout", 1.5, "refused"),
        ("torch_dtype", "float16", "replaced"),
        ("torch_dtype", "int8", "refused"),
        ("target_modules", "o_proj", "replaced"),
        ("target_modules", ".*proj", "refused"),
    ],
)
def test_kept_is_said_of_what_the_recipe_takes(key: str, value: Any, verdict: str) -> None:
    imported = convert({"input_model": {"model_path": "./x"}, "passes": {"l": {"type": "LoRA", key: value}}})
    (line,) = [line for line in imported.report if line.key.startswith(f"passes.l.{key}")]
    assert line.verdict == verdict, line


@pytest.mark.parametrize(
    ("template", "columns", "taken"),
    [
        ("{a}\n{b}", ["a", "b"], True),
        ("{a}\n{b}", None, True),
        ("{b}\n{a}", ["a", "b"], False),
        ("{a}\n{b} ({c})", ["a", "b", "c"], False),
        ("{a}", None, False),
        ("{text}", ["text"], False),
    ],
)
def test_a_template_is_taken_where_rows_can_fill_it(template: str, columns: list[str] | None, taken: bool) -> None:
    pre_process = {"text_template": template, **({"text_cols": columns} if columns else {})}
    config = {
        "data_configs": [{"name": "d", "pre_process_data_config": pre_process}],
        "passes": {"l": {"type": "LoRA", "train_data_config": "d"}},
    }
    imported = convert(config)
    check(config, imported)
    assert ("text_template" in imported.values) == taken


def test_passes_of_all_versions_are_known() -> None:
    """Among them those of the Olive that is installed."""
    import olive

    installed = json.loads((Path(olive.__file__).parent / "olive_config.json").read_text())["passes"]
    for name in (*installed, "OnnxMatMul4Quantizer", "SparseGPT", "LoftQ", "GptqQuantizer", "TorchTRTConversion"):
        assert name.lower() in known_passes()
        imported = convert({"input_model": {"model_path": "./x"}, "passes": {"p": {"type": name}}})
        assert told(imported, "passes.p.type")[0] in ("renamed", "replaced", "dropped", "refused")
    imported = convert(
        {"passes": {"p": {"type": "OnnxConversion", "target_opsett": 1}, "q": {"type": "OnxConversion"}}}
    )
    assert "Did you mean 'target_opset'" in told(imported, "passes.p.target_opsett")[1]
    assert "Did you mean 'OnnxConversion'" in told(imported, "passes.q.type")[1]


def test_a_hint_is_near_or_there_is_none() -> None:
    """`io_config` was said to be a misspelt `input_model.hf_config.task`."""
    imported = convert({"engine": {"output_dri": "x", "colour": "red"}, "passes": {"l": {"type": "LoRA", "zzz": 1}}})
    assert told(imported, "engine.output_dri")[1].endswith("Did you mean 'output_dir'?")
    assert "mean" not in told(imported, "engine.colour")[1]
    assert "mean" not in told(imported, "passes.l.zzz")[1]
    pre_process = {"text_tempalte": "{a}", "zzz": 1}
    imported = convert({"data_configs": [{"pre_process_data_config": pre_process}], "passes": {"l": {"type": "LoRA"}}})
    verdict, why = told(imported, "data_configs.0.pre_process_data_config.text_tempalte")
    assert (verdict, why.rpartition(".")[2]) == ("unknown", "text_template'?")
    assert told(imported, "data_configs.0.pre_process_data_config.zzz")[0] == "unknown"
    # A pass of somebody's fork, which is no misspelt one of Olive's.
    imported = convert({"passes": {"p": {"type": "AcmePython", "bits": 4}}})
    assert [line.key for line in imported.unknown] == ["passes.p.type"]
    assert "mean" not in told(imported, "passes.p.type")[1]


def test_a_task_that_generates_no_text_is_refused() -> None:
    imported = convert({"input_model": {"model_path": "./x", "task": "text-classification"}, "passes": {}})
    assert told(imported, "input_model.task") == ("refused", "text-classification; a recipe's models generate text")


def test_what_is_no_mapping_where_keys_belong_is_refused() -> None:
    imported = convert({"input_model": "./x", "passes": "LoRA", "systems": {"a": "LocalSystem"}, "engine": {}})
    assert imported.values["base_model"] == "./x"
    assert [line.key for line in imported.unknown] == ["passes", "systems.a"]


PARSED = [read_config(path) for path in (*WILD, CONFIGS / "cookbook-lora.json", CONFIGS / "cookbook-qlora.json")]
WORDS = [
    "type",
    "config",
    "params",
    "passes",
    "data_files",
    "host",
    "LoRA",
    "azureml_datastore",
    "",
    "*",
    "a|b\n",
    "\ud800",
]
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 10**20), st.floats(), st.sampled_from(WORDS), st.text(max_size=6)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=5), inner),
    max_leaves=6,
)


def nodes(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(one for key, child in inner for one in nodes(child, (*path, key)))]


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        value = value[part]
    return value


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """A real-looking configuration with something else in a few places."""
    config = copy.deepcopy(draw(st.sampled_from(PARSED)))
    for _ in range(draw(st.integers(1, 4))):
        *parent, last = draw(st.sampled_from(nodes(config)[1:] or [("passes",)]))
        holder = at(config, tuple(parent))
        how = draw(st.sampled_from(["replace", "wrap", "move", "add", "drop"]))
        if how == "replace":
            holder[last] = draw(VALUES)
        elif how == "wrap":
            holder[last] = [holder.get(last) if isinstance(holder, dict) else holder[last], draw(VALUES)]
        elif how == "move":
            other = draw(st.sampled_from(PARSED))
            holder[last] = copy.deepcopy(at(other, draw(st.sampled_from(nodes(other)))))
        elif how == "add" and isinstance(holder, dict):
            holder[draw(st.sampled_from(WORDS) | st.text(max_size=8))] = draw(VALUES)
        elif how == "drop" and last in (holder if isinstance(holder, dict) else range(len(holder))):
            del holder[last]
    return config


@pytest.mark.parametrize("other", [None, 3, "x", [], [3, {"type": "y"}]], ids=repr)
def test_something_else_may_stand_wherever_keys_or_a_list_are_expected(other: Any) -> None:
    """Every such place of every configuration, one by one: chance finds a rare place too seldom."""
    for config in PARSED:
        for path in nodes(config)[1:]:
            if isinstance(at(config, path), dict | list):
                changed = copy.deepcopy(config)
                at(changed, path[:-1])[path[-1]] = copy.deepcopy(other)
                check(changed, convert(changed))


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutated())
def test_no_configuration_ends_in_a_traceback(config: dict[str, Any]) -> None:
    imported = convert(config)
    check(config, imported)
    assert set(yaml.safe_load(imported.recipe_yaml("phi3 run").partition("\n")[2])) == set(imported.values)


def test_the_check_above_can_fail() -> None:
    config = copy.deepcopy(PARSED[0])
    imported = convert(config)
    imported.report.pop(0)
    with pytest.raises(AssertionError):
        check(config, imported)
