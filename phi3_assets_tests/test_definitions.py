"""The code location: loads fast, by every tool, and holds exactly these assets."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from phi3_assets.core.errors import UserError
from phi3_assets.core.web_address import GROUPS
from phi3_assets.definitions import build_defs
from phi3_assets.evaluation.fitness import RULES
from phi3_assets.steps import STEPS
from phi3_assets_tests.conftest import clean_env

ROOT = Path(__file__).parent.parent


def test_loading_imports_nothing_heavy():
    """Every run and every sensor tick loads the location anew; torch alone would cost three seconds each time."""
    code = (
        "import sys, phi3_assets.definitions\n"
        "heavy = {'torch', 'transformers', 'olive', 'azure', 'onnxruntime', 'onnxruntime_genai', 'peft', 'datasets',"
        " 'pandas', 'matplotlib', 'scipy', 'numpy', 'pyarrow', 'psutil', 'phi3_assets.resources.blob_store'}\n"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=clean_env())
    assert done.stdout.strip() == ""


def test_assets_are_the_steps_and_the_champion():
    graph = build_defs().resolve_asset_graph()
    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == {"datasets", *STEPS, "champion"}
    assert {key.to_user_string() for key in graph.get(dg.AssetKey("champion")).parent_keys} == {"release_bundle"}
    for name, step in STEPS.items():
        parents = {key.to_user_string() for key in graph.get(dg.AssetKey(name)).parent_keys}
        reads = {folder.name for folder in step.reads if folder.name == "datasets"}
        assert parents == {*step.inputs, *reads}, name


def test_every_asset_says_what_it_is():
    for spec in build_defs().resolve_all_asset_specs():
        assert spec.description, spec.key
        if spec.key == dg.AssetKey("datasets"):  # Dagster gives what it does not make no owner
            continue
        assert spec.owners == ["team:language-models"]
        assert spec.kinds
        assert spec.group_name in GROUPS  # and so the address with all of them open shows it
        step = STEPS.get(spec.key.to_user_string())
        assert spec.code_version == (step.code_version if step else None)


def test_model_assets_are_graphs_of_named_ops():
    job = build_defs().resolve_job_def("retrain")
    passes = {
        "base_model": "fetch_base_model",
        "lora_adapter": "run_lora_pass",
        "merged_model": "run_merge_pass",
        "onnx_int4_model": "run_model_builder_pass",
    }
    for asset, op in passes.items():
        names = set(job.graph.node_dict[asset].definition.node_dict)
        assert names == {f"plan_{asset}", op, "verify_artefact"}


def test_checks_hold_back_what_is_wrong():
    blocking = {spec.name for check in build_defs().asset_checks for spec in check.check_specs if spec.blocking}
    assert blocking >= {
        "every_row_is_accounted_for",
        "tests_come_from_the_data",
        "answers_are_learnt_to_the_end",
        "test_rows_are_not_trained_on",
        "layout_keeps_the_logits",
        "adapter_is_not_inert",
        "merged_is_base_plus_adapter",
        "int4_runs",
        "smoke_test_passes",
        "bundle_is_what_was_scored",
        *RULES,
    }


def test_unknown_execution_lists_the_choices(monkeypatch):
    monkeypatch.setenv("PHI3_EXECUTION", "loca")
    with pytest.raises(UserError, match=r"choose one of local, azureml, azure_arc. Did you mean 'local'\?"):
        build_defs()


@pytest.mark.parametrize(
    "command",
    [
        ["dagster", "definitions", "validate", "-w", "workspace.yaml"],
        ["dg", "check", "defs"],
        ["dg", "list", "defs"],
    ],
)
def test_the_tools_load_it(command):
    done = subprocess.run(
        [str(Path(sys.executable).parent / command[0]), *command[1:]],
        cwd=ROOT,
        env=clean_env(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
