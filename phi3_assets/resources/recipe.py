"""The recipe as a Dagster resource: choose one by name and override any field of it in the launchpad.

resources: {recipe: {config: {recipe: smol-cpu, lora_r: 16, num_train_epochs: 1}}}
"""

from typing import Any, get_origin

import dagster as dg
import pydantic

from phi3_assets.core.fields import use_of
from phi3_assets.core.recipe import Recipe
from phi3_assets.core.recipe_file import load_recipe, recipe_name


def _launchpad_type(annotation: Any) -> Any:
    """The plain type the launchpad asks for; ranges and choices are checked by the recipe itself."""
    if get_origin(annotation) is list:
        return list[str]
    if annotation in (int, float, str, bool):
        return annotation
    choice = annotation.__args__[0]  # a Literal of one type
    return type(choice)


# Generated from the recipe, so that no field can be forgotten here or described in two ways.
_fields: dict[str, Any] = {
    name: (
        _launchpad_type(field.annotation) | None,
        pydantic.Field(default=None, description=f"{field.description} Of: {use_of(field)}."),
    )
    for name, field in Recipe.model_fields.items()
}
_Fields: Any = pydantic.create_model("_Fields", __base__=dg.ConfigurableResource, **_fields)


class RecipeResource(_Fields):  # type: ignore[misc]
    """Which recipe a run follows. Any field given here replaces the recipe's."""

    recipe: str = pydantic.Field(
        default="",
        description="A shipped recipe's name or the path of a .yaml file; empty: PHI3_RECIPE, else smol-cpu.",
    )

    def load(self) -> Recipe:
        """Read and validate the recipe with this run's overrides.

        Raises:
            UserError: See `phi3_assets.core.recipe_file.load_recipe`.
        """
        return load_recipe(self.recipe, self._overrides())

    def told(self) -> str:
        """The recipe's name and this run's overrides, as in "smol-cpu, lora_r=16"."""
        return ", ".join([recipe_name(self.recipe), *(f"{name}={value}" for name, value in self._overrides().items())])

    def _overrides(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in Recipe.model_fields}
        return {name: value for name, value in given.items() if value is not None}
