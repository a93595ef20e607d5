"""The recipe is strict: whatever it does not understand it refuses, with the way out."""

import pytest

from phi3_assets.core.errors import UserError
from phi3_assets.core.recipe import Recipe, load_recipe, shipped_recipes
from phi3_assets.resources.recipe import RecipeResource
from phi3_assets.steps import STEPS

# Read by the orchestrator: to find the inputs whose content then counts, and to judge what came out.
ORCHESTRATORS = {"adapter_path", "dataset_path", "max_defective_share"}


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


def test_every_field_reaches_a_step():
    """A field that is validated and documented and read by nothing is a promise that is not kept."""
    used = {name for step in STEPS.values() for name in (*step.recipe_fields, *step.setting_fields)}
    assert used | ORCHESTRATORS == set(Recipe.model_fields)
