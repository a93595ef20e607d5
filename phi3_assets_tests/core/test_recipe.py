"""The recipe is strict: whatever it does not understand it refuses, with the way out."""

import re

import dagster as dg
import pytest
from typer.testing import CliRunner

from phi3_assets.cli.app import app
from phi3_assets.core.errors import UserError
from phi3_assets.core.fields import allowed, field, told, use_of
from phi3_assets.core.recipe import Recipe, fields_of, settings_of
from phi3_assets.core.recipe_file import load_recipe, shipped_recipes
from phi3_assets.definitions import build_defs
from phi3_assets.resources.recipe import RecipeResource
from phi3_assets.steps import ALL_STEPS, STEPS


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_is_valid(name):
    assert load_recipe(name)


def test_unknown_key_names_the_nearest(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("lora_rank: 8\n")
    with pytest.raises(UserError, match=r"unknown key 'lora_rank'. Did you mean 'lora_r'\?"):
        load_recipe(str(path))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"lora_r": 0}, "lora_r: .*greater than or equal to 1; got 0"),
        ({"lora_r": "8"}, "lora_r: .*valid integer; got '8'"),
        ({"int4_block_size": 7}, "int4_block_size: .*16, 32, 64, 128 or 256; got 7"),
        ({"test_share": 1.0}, "test_share: .*less than 1"),
        ({"test_items": 10, "gate_min_items": 20}, "test_items: must be 0 or at least gate_min_items, 20"),
        ({"base_model": "owner/name", "base_model_revision": "main"}, "pinned by the 40 hex digits.*got 'main'"),
        ({"base_model_revision": "sha256:1"}, "pinned by 'sha256:'"),
    ],
)
def test_wrong_values_say_field_rule_and_value(overrides, message):
    with pytest.raises(UserError, match=message):
        load_recipe("smol-cpu", overrides)


def test_unknown_recipe_lists_the_shipped():
    with pytest.raises(UserError, match=r"Did you mean 'smol-cpu'\? Shipped recipes: .*tiny-test"):
        load_recipe("smol-gpu")


def test_environment_chooses_the_recipe(monkeypatch):
    monkeypatch.setenv("PHI3_RECIPE", "tiny-test")
    assert load_recipe().base_model == "random:phi3-tiny"
    assert load_recipe("smol-cpu").base_model.startswith("pypi:")


def test_floats_may_be_written_as_people_write_them(tmp_path):
    """YAML 1.1 reads 1e-3 as text; a recipe with it must not fail, let alone train with something else."""
    path = tmp_path / "mine.yaml"
    path.write_text("learning_rate: 1e-3\n")
    assert load_recipe(str(path)).learning_rate == 0.001


def test_launchpad_can_override_every_field():
    assert set(Recipe.model_fields) < set(RecipeResource.model_fields)
    recipe = RecipeResource(recipe="tiny-test", lora_r=3, target_modules=["o_proj"]).load()
    assert (recipe.lora_r, recipe.target_modules, recipe.base_model) == (3, ["o_proj"], "random:phi3-tiny")


@pytest.mark.parametrize("name", Recipe.model_fields)
def test_every_field_says_whose_it_is(name):
    """A field that is validated and documented and read by nothing is a promise that is not kept."""
    use = use_of(Recipe.model_fields[name])
    assert use.steps or use.setting_of or use.asked_by
    assert {*use.steps, *use.setting_of} <= set(ALL_STEPS)
    assert not set(use.steps) & set(use.setting_of)


def test_a_field_of_nobodys_is_refused():
    with pytest.raises(TypeError, match="names the steps that read it"):
        field(1, description="Read by nothing.")


def test_steps_are_handed_their_fields_and_no_others():
    recipe = load_recipe("tiny-test")
    for name, step in STEPS.items():
        assert set(step.params(recipe)) == {*fields_of(name), *step.derived}
        assert set(step.settings(recipe)) == set(settings_of(name))
    assert set(STEPS["merged_model"].params(recipe)) == {"merge_onto"}
    assert set(STEPS["eval_report"].params(recipe)) == {"max_new_tokens", "test_items"}
    assert {"question_column", "answer_column"} <= set(fields_of("raw_dataset")) & set(fields_of("formatted_corpus"))


def test_terminal_says_whose_a_field_is():
    listed = CliRunner().invoke(app, ["recipes"]).stdout
    assert "\nlora_r  (whole number, at least 1; default: 64; of: lora_adapter)\n" in listed
    assert (
        "\nmax_defective_share  (number, at least 0, at most 1; default: 0.1; of: the checks of raw_dataset)\n"
        in listed
    )


def test_launchpad_says_whose_a_field_is():
    described = RecipeResource.model_fields["question_column"].description
    assert described.endswith("Of: raw_dataset, formatted_corpus.")
    assert RecipeResource.model_fields["gate_alpha"].description.endswith("Of: release_bundle; the gate.")


@pytest.mark.parametrize("name", Recipe.model_fields)
def test_launchpad_says_default_and_range(name):
    info = Recipe.model_fields[name]
    described = RecipeResource.model_fields[name].description
    assert f"Allowed: {allowed(info)}; default, where the recipe says nothing: {told(info.default)}." in described


def launch(**config):
    """What Dagster has the code location do when a run is to be launched; nothing of the run has started then."""
    job = build_defs().resolve_job_def("retrain")
    return dg.validate_run_config(job, {"resources": {"recipe": {"config": config}}})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        # It failed in the run, and the recipe's file was blamed.
        ({"lora_dropout": 3.0}, r"Given for this run, in the launchpad or with --set: lora_dropout: .* less than 1"),
        ({"int4_bits": 3}, "Given for this run, .*int4_bits: Input should be 2 or 4"),
        # It was refused with a list of ninety fields.
        ({"lora_rr": 8}, "there is no field 'lora_rr'. Did you mean 'lora_r'?"),
        ({"recipe": "smol-gpu"}, "Did you mean 'smol-cpu'?"),
        # A contradiction between what is given and what the recipe says.
        ({"recipe": "smol-cpu", "int4_algorithm": "default"}, "Given for this run, .*int4_algorithm gptq"),
    ],
)
def test_a_wrong_value_is_refused_before_the_launch(config, message):
    with pytest.raises(UserError, match=message):
        launch(**config)


def test_a_wrong_choice_is_refused_while_one_types():
    with pytest.raises(dg.DagsterInvalidConfigError, match=r"not in enum type supervise: answers \| all got nothing"):
        launch(supervise="nothing")


def test_right_values_are_launched_as_they_were_given():
    config = launch(recipe="tiny-test", lora_r=3, supervise="all", target_modules=["o_proj"])
    given = {name: value for name, value in config["resources"]["recipe"]["config"].items() if value is not None}
    assert given == {"recipe": "tiny-test", "lora_r": 3, "supervise": "all", "target_modules": ["o_proj"]}


def test_whoever_gave_a_wrong_value_is_named(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("lora_r: 0\n")
    with pytest.raises(UserError) as error:
        load_recipe(str(path), {"lora_dropout": 3})
    assert re.fullmatch(
        rf"Given for this run, .*: lora_dropout: .*; got 3 Recipe {re.escape(str(path))}: lora_r: .*; got 0",
        str(error.value),
    )
