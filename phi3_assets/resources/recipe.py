"""The recipe as a Dagster resource: choose one by name and override any field of it in the launchpad.

resources: {recipe: {config: {recipe: smol-cpu, lora_r: 16, num_train_epochs: 1}}}
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

import dagster as dg
import pydantic
from pydantic.fields import FieldInfo

from phi3_assets.core.errors import UserError, nearest
from phi3_assets.core.fields import allowed, told, use_of
from phi3_assets.core.recipe import Recipe
from phi3_assets.core.recipe_file import load_recipe, recipe_name


def _launchpad_type(annotation: Any) -> Any:
    """The plain type the launchpad asks for."""
    if get_origin(annotation) is list:
        return list[str]
    if annotation in (int, float, str, bool):
        return annotation
    choice = annotation.__args__[0]  # a Literal of one type
    return type(choice)


def _described(info: FieldInfo) -> str:
    default = f"default, where the recipe says nothing: {told(info.default)}"
    return f"{info.description} Allowed: {allowed(info)}; {default}. Of: {use_of(info)}."


# Generated from the recipe, so that no field can be forgotten here or described in two ways.
_fields: dict[str, Any] = {
    name: (_launchpad_type(info.annotation) | None, pydantic.Field(default=None, description=_described(info)))
    for name, info in Recipe.model_fields.items()
}
_Fields: Any = pydantic.create_model("_Fields", __base__=dg.ConfigurableResource, **_fields)


class RecipeConfig(dg.Permissive):
    """The launchpad's fields, validated as a whole recipe before a run is launched.

    What the launchpad itself can check while one types are types and choices. Dagster has the code location resolve a
    run's configuration when it is asked to launch it: there ranges and contradictions are refused. Unknown names too,
    and so the type is a permissive one: a strict one would refuse them with a list of all fields.
    """

    def __new__(cls, fields: Mapping[str, dg.Field]) -> "RecipeConfig":
        """Dagster's own keeps one plain Permissive for each set of fields, and never makes a class derived from it."""
        made = object.__new__(cls)
        made._initialized = False
        return made

    def post_process(self, value: Mapping[str, Any]) -> Mapping[str, Any]:
        """Called by Dagster with what was given, defaults filled in.

        Raises:
            UserError: No such recipe or field, or a value that the recipe refuses.
        """
        known = list(RecipeResource.model_fields)
        for name in value:
            if name not in known:
                raise UserError(
                    f"resources: recipe: config: there is no field {name!r}.{nearest(name, known)} "
                    "docs/recipes.md lists all fields."
                )
        load_recipe(value["recipe"], overrides_of(value))
        return value


def overrides_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's fields that this run replaces; those that are None it does not."""
    return {name: config[name] for name in Recipe.model_fields if config.get(name) is not None}


class RecipeResource(_Fields):  # type: ignore[misc]
    """Which recipe a run follows. Any field given here replaces the recipe's."""

    recipe: str = pydantic.Field(
        default="",
        description="A shipped recipe's name or the path of a .yaml file; empty: PHI3_RECIPE, else smol-cpu.",
    )

    @property
    def _config_schema(self) -> Any:
        """As Dagster infers it, with choices where the recipe has such, and validated as a whole.

        Of a field that may be left out, Dagster infers no choices.
        """
        inferred = super()._config_schema.as_field()
        fields = dict(inferred.config_type.fields)
        for name, info in Recipe.model_fields.items():
            choices = get_args(info.annotation) if get_origin(info.annotation) is Literal else ()
            if choices and isinstance(choices[0], str):  # Dagster's choices are text
                # Its name is what Dagster says of a value that is none of them.
                one_of = dg.Enum(f"{name}: {' | '.join(choices)}", [dg.EnumValue(choice) for choice in choices])
                given = fields[name].default_value
                fields[name] = dg.Field(dg.Noneable(one_of), given, False, fields[name].description)
        return type(super()._config_schema)(dg.Field(RecipeConfig(fields), inferred.default_value, False))

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
        return overrides_of({name: getattr(self, name) for name in Recipe.model_fields})
