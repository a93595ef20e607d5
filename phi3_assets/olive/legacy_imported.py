"""What came of an Olive configuration: a recipe's fields, what is to be filled in, Azure's settings, a report."""

import json
import re
import unicodedata
from dataclasses import dataclass, field
from typing import Any

import yaml

from phi3_assets.core.recipe import Recipe
from phi3_assets.core.recipe_data import DEFAULT_PRODUCT
from phi3_assets.core.recipe_file import validate


@dataclass(frozen=True)
class Line:
    """One line of the report.

    Attributes:
        key: Path in the configuration, dotted; "" for a field that Olive's defaults add.
        verdict: "kept", "renamed", "replaced", "dropped", "added", "refused" (a value that the recipe does not take) or
            "unknown" (a key that no rule knows).
        why: What took its place, or why nothing did.
    """

    key: str
    verdict: str
    why: str


@dataclass
class Imported:
    """A recipe's fields, settings of Azure, and what became of every key.

    Attributes:
        values: Of the recipe, by field.
        missing: Fields of the recipe that are to be filled in, with a sentence about each; `values` holds what stands
            there until then, which a recipe refuses.
        origins: Key that a field of the recipe is from.
        settings: Of Azure, by field (phi3_assets.azure.settings).
        blanks: Settings that the configuration leaves to be filled in, with its words for them.
        executions: Environment variables that say where steps run; empty: on this machine.
        report: What became of every key.
    """

    values: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    blanks: dict[str, str] = field(default_factory=dict)
    executions: dict[str, str] = field(default_factory=dict)
    report: list[Line] = field(default_factory=list)

    @property
    def unknown(self) -> list[Line]:
        """Keys that no rule knows, and values that are not taken: the recipe may not say what they meant."""
        return [line for line in self.report if line.verdict in ("unknown", "refused")]

    def take(self, values: dict[str, Any], key: str) -> None:
        """Take the recipe's fields of a key."""
        self.values |= values
        self.origins |= dict.fromkeys(values, key)

    def add(self, values: dict[str, Any], why: str) -> None:
        """Take fields that no key names."""
        self.values |= values
        told = ", ".join(f"{name}: {json.dumps(value)}" for name, value in values.items())
        self.report.append(Line("", "added", f"{told}: {why}" if why else told))

    def fill(self, name: str, value: str, missing: str) -> None:
        """Take a field that may be still to be filled in; `missing` says how, "" if it is not."""
        self.values[name] = value
        if missing:
            self.missing[name] = missing

    def name_product(self, name: str) -> None:
        """Give the recipe a product of its own, after the name of its file.

        With the default one it would be judged by the test set of the sample, and compete with its champion.
        """
        letters = unicodedata.normalize("NFKD", name).casefold()
        product = re.sub("[^a-z0-9]+", "-", letters)[:40].strip("-")
        if product in ("", DEFAULT_PRODUCT):
            product = f"imported-{product or 'recipe'}"
        self.add(
            {"product": product}, "each line of models has its own test set and champion; Olive knows no such name"
        )

    def refuse(self, name: str, why: str) -> None:
        """Take a field back, and say so at the key that it is from."""
        self.values.pop(name, None)
        key = self.origins.pop(name, "")
        lines = [i for i, line in enumerate(self.report) if line.key == key] if key else []
        told = Line(key, "refused", why)
        self.report[lines[0] : lines[0] + 1] = [told] if lines else []
        if not lines:
            self.report.append(told)

    def recipe(self) -> Recipe:
        """The recipe, with any value in the place of those that are still to be filled in.

        Raises:
            UserError: A field does not take its value.
        """
        filled = {name: value for name, value in self.values.items() if name not in self.missing}
        if "base_model" in self.missing:
            filled |= {"base_model": "/", "base_model_revision": ""}
        elif "base_model_revision" in self.missing:
            filled["base_model_revision"] = "0" * 40
        return validate(filled, "imported")

    def recipe_yaml(self, command: str) -> str:
        """The recipe as YAML, opened by the command that runs it; what is to be filled in is said above its field."""
        lines = [f"# {command}", ""]
        for name in Recipe.model_fields:
            if name not in self.values:
                continue
            if name in self.missing:
                lines.append(f"# To be filled in: {_in_one_line(self.missing[name])}.")
            lines.append(yaml.safe_dump({name: self.values[name]}, allow_unicode=True, width=110).strip())
        return "\n".join(lines) + "\n"

    def report_markdown(self) -> str:
        """The report as a table, in the order of the configuration."""
        rows = [f"| {_cell(line.key) or '-'} | {line.verdict} | {_cell(line.why)} |" for line in self.report]
        return "\n".join(["| key | verdict | what became of it |", "|---|---|---|", *rows]) + "\n"


def _cell(text: str) -> str:
    return _in_one_line(text).replace("|", "\\|")


def _in_one_line(text: str) -> str:
    """Text of a configuration for a terminal: nothing that breaks lines, steers it, or cannot be written as UTF-8."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
