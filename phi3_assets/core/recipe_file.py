"""From a YAML file, or one that is shipped, to a recipe; whatever is wrong with it ends in a sentence."""

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pydantic
import yaml

from phi3_assets.core.errors import UserError, nearest
from phi3_assets.core.files import open_file
from phi3_assets.core.recipe import Recipe

RECIPES_DIR = Path(__file__).parents[1] / "recipes"
DEFAULT_RECIPE = "smol-cpu"
MAX_RECIPE_BYTES = 1 << 20


class _Loader(yaml.SafeLoader):
    """YAML 1.1 takes 1e-3 for text, because it has no dot; people do not.

    Anchors are refused: nine lines of lists that name each other are a billion words when they are shown.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="anchors and aliases are not taken", problem_mark=self.get_mark())
        return super().compose_node(parent, index)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_yaml(text: str, where: str) -> Any:
    """Parse YAML as a person means it; `where` names its origin in errors.

    Raises:
        UserError: It is not YAML, or uses what a recipe has no need of.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{where} is not valid YAML: {error.problem}{place}.") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: 2026-13-01 looks like a date
        raise UserError(f"{where} is not valid YAML: {' '.join(str(error).split())}.") from None
    except RecursionError:
        raise UserError(f"{where} is not valid YAML: it is nested too deeply.") from None


def shipped_recipes() -> list[str]:
    """Names of the recipes in phi3_assets/recipes."""
    return sorted(path.stem for path in RECIPES_DIR.glob("*.yaml"))


def recipe_name(name: str | None = None) -> str:
    """The recipe that is meant: the one named, else the environment's PHI3_RECIPE, else smol-cpu."""
    return name or os.environ.get("PHI3_RECIPE") or DEFAULT_RECIPE


def load_recipe(name: str | None = None, overrides: dict[str, Any] | None = None) -> Recipe:
    """Read a recipe by name or path and lay `overrides` over it.

    Args:
        name: A shipped recipe's name or a path ending in .yaml; None or "": the environment's PHI3_RECIPE, else
            smol-cpu.
        overrides: Recipe fields that replace those of the file.

    Raises:
        UserError: No such recipe, not a mapping, an unknown key (names the nearest), or a value out of range.
    """
    name = recipe_name(name)
    path = Path(name).expanduser() if name.endswith((".yaml", ".yml")) else RECIPES_DIR / f"{name}.yaml"
    try:
        with open_file(path) as file:
            content = file.read(MAX_RECIPE_BYTES + 1)
    except OSError as error:
        known = shipped_recipes()
        raise UserError(
            f"Recipe {name!r} cannot be read ({error.strerror}: {path}).{nearest(name, known)} "
            f"Shipped recipes: {', '.join(known)}. For a file of your own give a path that ends in .yaml."
        ) from None
    if len(content) > MAX_RECIPE_BYTES:
        raise UserError(f"Recipe {path} is larger than {MAX_RECIPE_BYTES >> 20} MiB, so it is none.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f"Recipe {path} is not UTF-8 (line {line}). Save it as UTF-8.") from None
    values = read_yaml(text, f"Recipe {path}") or {}
    if not isinstance(values, dict):
        raise UserError(f"Recipe {path} must be a mapping of field to value, like 'lora_r: 16'.")
    return validate({**values, **(overrides or {})}, where=str(path), overridden=overrides or {})


def validate(values: dict[str, Any], where: str, overridden: Collection[str] = ()) -> Recipe:
    """Build a recipe from plain values.

    Args:
        values: By field.
        where: Names their origin in errors.
        overridden: Fields that are not from there, but were given for this run.

    Raises:
        UserError: Lists every wrong field with the rule it broke, and says who gave it.
    """
    known = list(Recipe.model_fields)
    try:
        return Recipe(**values)
    except pydantic.ValidationError as error:
        of_run: list[str] = []
        of_recipe: list[str] = []
        for problem in error.errors():
            name = ".".join(str(part) for part in problem["loc"])
            if problem["type"] == "extra_forbidden":
                line = f"unknown key {name!r}.{nearest(name, known) or ' See docs/recipes.md for all keys.'}"
            elif not name:
                line = problem["msg"].removeprefix("Value error, ")
            else:
                line = f"{name}: {problem['msg']}; got {repr(problem['input'])[:80]}"
            # A rule about several fields names them in its sentence.
            concerned = {name.partition(".")[0]} if name else set(re.findall(r"\w+", line))
            (of_run if concerned & set(overridden) else of_recipe).append(line)
        told = [f"Given for this run, in the launchpad or with --set: {'; '.join(of_run)}"] if of_run else []
        told += [f"Recipe {where}: {'; '.join(of_recipe)}"] if of_recipe else []
        raise UserError(" ".join(told)) from None
