"""`phi3 recipes`: the shipped recipes, every field a recipe can have, and what one of them says."""

from typing import Annotated

import typer

from phi3_assets.core.fields import allowed, told, use_of
from phi3_assets.core.recipe import Recipe
from phi3_assets.core.recipe_file import load_recipe, shipped_recipes

BAR = "\\|"
"""A bar within a cell of a Markdown table."""


def recipes(
    name: Annotated[
        str, typer.Argument(help="A shipped recipe or a .yaml file; without it, all fields there are.")
    ] = "",
    markdown: Annotated[bool, typer.Option("--markdown", help="All fields as docs/reference-recipe.md.")] = False,
) -> None:
    """List the shipped recipes and every field a recipe can have; with a NAME, its values beside the defaults."""
    if markdown:
        print("\n".join(reference()))
        return
    if name:
        print("\n".join(values_of(load_recipe(name))))
        return
    print("Shipped: " + ", ".join(shipped_recipes()) + "; `phi3 recipes NAME` shows what one of them says.")
    for field, info in Recipe.model_fields.items():
        print(
            f"\n{field}  ({allowed(info)}; default: {told(info.default)}; of: {use_of(info)})\n    {info.description}"
        )


def reference() -> list[str]:
    """Every field as a page: docs/reference-recipe.md, which is made by `phi3 recipes --markdown`."""
    lines = [
        "# Every field of a recipe",
        "",
        "Made by `phi3 recipes --markdown` from the types in `phi3_assets/core/recipe.py`, where a field is defined",
        "once. [recipes.md](recipes.md) says which to choose when.",
        "",
        "*Of* names the steps whose result a field can change, and which are made anew when it does; a *setting*",
        "reaches a step and cannot change its result; otherwise, who else asks for it.",
        "",
        "| field | may be | default | of | meaning |",
        "|---|---|---|---|---|",
    ]
    for field, info in Recipe.model_fields.items():
        meaning = str(info.description).replace("<", "&lt;")
        cells = (f"`{field}`", allowed(info), f"`{told(info.default)}`", str(use_of(info)), meaning)
        lines.append(f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |")
    return lines


def values_of(recipe: Recipe) -> list[str]:
    """A recipe as a table of lines: its values, the defaults that it changes, and what else could stand there."""
    rows = [("field", "value", "default", "allowed")]
    for name, info in Recipe.model_fields.items():
        value = getattr(recipe, name)
        rows.append((name, told(value), "" if value == info.default else told(info.default), allowed(info)))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    ]
