"""Options that several commands of `phi3` share."""

from pathlib import Path
from typing import Annotated, Any

import typer

from phi3_assets.core.errors import UserError, nearest
from phi3_assets.core.recipe import Recipe
from phi3_assets.core.recipe_file import read_yaml


def _absolute(path: Path | None) -> Path | None:
    """Dagster takes no relative DAGSTER_HOME, and a worker starts in another folder."""
    return path.expanduser().absolute() if path else None


Home = Annotated[
    Path | None, typer.Option(help="Folder to work in; default: PHI3_HOME, else ./home.", callback=_absolute)
]
RecipeName = Annotated[str, typer.Option(help="A shipped recipe or a .yaml file; default: PHI3_RECIPE, else smol-cpu.")]
Product = Annotated[str, typer.Option(help="Whose models; default: PHI3_RECIPE's product, else the home's only one.")]
Reason = Annotated[str, typer.Option(help="Why, for the history.")]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="FIELD=VALUE", help="Replace a field of the recipe; may be repeated.")
]


def parse_overrides(pairs: list[str]) -> dict[str, Any]:
    """Read FIELD=VALUE pairs; values are YAML, as in a recipe file.

    Raises:
        UserError: A pair has no "=", or names no field.
    """
    values = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"--set {pair!r}: write FIELD=VALUE, like --set lora_r=16.")
        if name not in Recipe.model_fields:
            raise UserError(f"--set {pair!r}: no recipe field {name!r}.{nearest(name, list(Recipe.model_fields))}")
        value = read_yaml(text, f"--set {pair!r:.200}: the value")
        if value is None:
            value = ""
        elif Recipe.model_fields[name].annotation is str and not isinstance(value, str | list | dict):
            value = text.strip()  # a number or a date to YAML; where only text is taken it needs no quotes
        values[name] = value
    return values
