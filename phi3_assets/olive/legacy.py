"""Reads an Olive configuration, of today or of Olive 0.6, and makes a recipe of it with a report on every key.

Today's Olive ignores the names it used to have: from the Phi-3 CookBook's own file it trains with alpha 16 instead of
64 and on 1024 tokens instead of 2048, and says so in a warning. Here every key is accounted for.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from phi3_assets.core.errors import UserError, nearest
from phi3_assets.core.files import open_file, read_json
from phi3_assets.core.recipe import Recipe, is_hub_id
from phi3_assets.core.recipe_file import load_recipe, read_yaml, shipped_recipes
from phi3_assets.olive import legacy_azure as azure
from phi3_assets.olive.legacy_rules import DEFAULTS, FINE_TUNING, RULES
from phi3_assets.olive.rule import Rule

_TRANSPARENT = {"config", "params", "extra_args"}
_BIG_LAYERS = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]


@dataclass(frozen=True)
class Line:
    """One line of the report.

    Attributes:
        key: Path in the configuration, dotted; "" for a field that Olive's defaults add.
        verdict: "kept", "renamed", "replaced", "dropped", "added" or "unknown".
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
        settings: Of Azure, by field (phi3_assets.azure.settings).
        blanks: Settings that the configuration leaves to be filled in, with its words for them.
        executions: Environment variables that say where steps run; empty: on this machine.
        report: What became of every key.
    """

    values: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    blanks: dict[str, str] = field(default_factory=dict)
    executions: dict[str, str] = field(default_factory=dict)
    report: list[Line] = field(default_factory=list)

    @property
    def unknown(self) -> list[Line]:
        """Keys that no rule knows; the recipe may not say what the configuration meant."""
        return [line for line in self.report if line.verdict == "unknown"]

    def recipe_yaml(self, command: str) -> str:
        """The recipe as YAML, opened by the command that runs it."""
        return f"# {command}\n\n" + yaml.safe_dump(self.values, sort_keys=False, allow_unicode=True, width=110)

    def report_markdown(self) -> str:
        """The report as a table, in the order of the configuration."""
        head = ["| key | verdict | what became of it |", "|---|---|---|"]
        return (
            "\n".join([*head, *(f"| {line.key or '-'} | {line.verdict} | {line.why} |" for line in self.report)]) + "\n"
        )


def import_config(path: Path) -> Imported:
    """Read a configuration file of Olive, JSON or YAML.

    Raises:
        UserError: It cannot be read, or is not one mapping.
    """
    try:
        if path.suffix == ".json":
            config = read_json(path)
        else:
            with open_file(path) as file:
                config = read_yaml(file.read().decode(), f"Olive configuration {path}")
    except OSError as error:
        raise UserError(f"Olive configuration {path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise UserError(f"Olive configuration {path} is not valid {path.suffix[1:] or 'YAML'}: {error}") from None
    if not isinstance(config, dict):
        raise UserError(f"Olive configuration {path} must be a mapping with keys such as input_model and passes.")
    return convert(config)


def convert(config: dict[str, Any]) -> Imported:
    """Make a recipe's fields of a configuration, and say what became of each of its keys."""
    result = Imported()
    types = {name: str(_pass_type(value)).lower() for name, value in config.get("passes", {}).items()}
    for path, value in _leaves(config):
        key = ".".join(path)
        place = _normal(path, types)
        rule = _find(place)
        if azure.holds_secret(path, value):
            why = "it holds a secret, which belongs into no file: revoke it, and put the new one into the key vault"
            result.report.append(Line(key, "dropped", why))
        elif rule is None:
            result.report.append(Line(key, "unknown", "no rule for this key." + nearest(".".join(place), list(RULES))))
        elif rule.settings:
            result.report.append(_set(config, key, place, rule, value, result))
        elif place[-1] in ("relative_path", "datastore_url"):
            result.report.append(_place_data(config, path, result))
        else:
            result.report.append(Line(key, rule.verdict, rule.why))
            result.values |= rule.fields(value) if rule.fields else {}
    _name_environment(result)
    result.executions = azure.executions(config)
    _add_provider(config, result)
    _add_defaults(set(types.values()), result)
    _add_revision(result)
    result.values = {name: result.values[name] for name in Recipe.model_fields if name in result.values}
    return result


def _pass_type(value: Any) -> Any:
    return (value[0] if isinstance(value, list) else value).get("type")


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value that is no mapping, with its path; a list of mappings is walked, but not one of accelerators."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, (*path, name))
    elif isinstance(value, list) and value and isinstance(value[0], dict) and path[-1] != "accelerators":
        for number, inner in enumerate(value):
            yield from _leaves(inner, (*path, str(number)))
    else:
        yield path, value


def _normal(path: tuple[str, ...], types: dict[str, str]) -> list[str]:
    """The path as the rules name it."""
    parts = [part for part in path if part not in _TRANSPARENT]
    if parts[0] == "engine" and len(parts) > 1:
        parts = parts[1:]
    if parts[0] == "passes" and len(parts) > 1:
        parts[1] = types[parts[1]]
        if len(parts) > 2 and parts[2] == "0":
            del parts[2]  # a list of alternatives; a recipe has one
    return parts


def _find(parts: list[str]) -> Any:
    """The rule of a path: the one with the fewest wildcards."""
    found = [
        (pattern.count("*"), rule)
        for pattern, rule in RULES.items()
        if len(wanted := pattern.split(".")) == len(parts)
        and all(a in ("*", b) for a, b in zip(wanted, parts, strict=True))
    ]
    return min(found, key=lambda item: item[0])[1] if found else None


def _set(config: dict[str, Any], key: str, place: list[str], rule: Rule, value: Any, result: Imported) -> Line:
    """Take a setting of Azure, unless it is that of a system that nothing runs on."""
    assert rule.settings is not None
    fields = rule.settings(value)
    host = azure.host_of(config)
    if place[0] == "systems" and place[1] != host and fields:
        told = ", ".join(f"{name}: {value}" for name, value in fields.items())
        where = azure.execution_of(place[1], config)
        return Line(key, "dropped", f"passes run on {host or 'no system'}; for {place[1]} set {told} with {where}")
    if azure.is_placeholder(value):
        result.blanks |= dict.fromkeys(fields, value)
        return Line(key, rule.verdict, f"{rule.why}, a placeholder to be filled in")
    if problem := azure.problem_with(fields):
        return Line(key, "unknown", f"{rule.why} does not take this value: {problem}")
    result.settings |= fields
    return Line(key, rule.verdict, rule.why)


def _place_data(config: dict[str, Any], path: tuple[str, ...], result: Imported) -> Line:
    """Take the address of data on a datastore."""
    block: Any = config
    for part in path[:-1]:
        block = block[int(part)] if isinstance(block, list) else block[part]
    block = {name: value for name, value in block.items() if not azure.holds_secret((name,), value)}
    address, why = azure.data_address(block, config.get("azureml_client") or {})
    if not address:
        return Line(".".join(path), "replaced", why)
    if result.values.setdefault("dataset_path", address) != address:
        return Line(".".join(path), "dropped", f"a recipe reads one folder; this would be dataset_path: {address}")
    return Line(".".join(path), "renamed", why)


def _name_environment(result: Imported) -> None:
    """Name and version of an environment are one setting."""
    name, version = (result.settings.pop(f"environment_{part}", "") for part in ("name", "version"))
    if name:
        result.settings["environment"] = f"azureml:{name}:{version}"


def _add_provider(config: dict[str, Any], result: Imported) -> None:
    """The execution provider of the system that is the target."""
    target = config.get("target") or config.get("engine", {}).get("target")
    system = config.get("systems", {}).get(target, {})
    accelerators = system.get("accelerators") or system.get("config", {}).get("accelerators") or []
    providers = [name for item in accelerators for name in item.get("execution_providers") or []]
    if providers:
        result.values["execution_provider"] = "cuda" if "CUDAExecutionProvider" in providers else "cpu"


def _add_defaults(types: set[str], result: Imported) -> None:
    """What Olive does where the configuration is silent and the recipe's default would do otherwise."""
    if not types & set(FINE_TUNING):
        return
    if "qlora" in types:
        result.report += [
            Line(
                "", "added", "target_modules: Olive's QLoRA adapts every linear layer, whatever its configuration says"
            )
        ]
        result.values["target_modules"] = _BIG_LAYERS
    for name, value in DEFAULTS.items():
        if name not in result.values:
            result.values[name] = value
            result.report.append(Line("", "added", f"{name}: {value} is Olive's default where none is given"))


def _add_revision(result: Imported) -> None:
    """A hub repository must be pinned; take the commit of a shipped recipe with the same base model."""
    base_model = result.values.get("base_model", "")
    if "base_model_revision" in result.values or not base_model:
        return
    result.values["base_model_revision"] = ""
    if not is_hub_id(base_model):
        return
    for name in shipped_recipes():
        shipped = load_recipe(name)
        if shipped.base_model == base_model:
            result.values["base_model_revision"] = shipped.base_model_revision
            result.report.append(Line("", "added", f"base_model_revision: the commit that recipe {name} is pinned to"))
            return
    result.report.append(Line("", "added", f"base_model_revision: fill in the commit of {base_model} you mean"))
