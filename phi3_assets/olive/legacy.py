"""Reads an Olive configuration, of Olive 0.4 or later, and makes a recipe of it with a report on every key.

Today's Olive ignores the names it used to have: from the Phi-3 CookBook's own file it trains with alpha 16 instead of
64 and on 1024 tokens instead of 2048, and says so in a warning. Here every key is accounted for, and nothing is said to
be kept that the recipe does not take.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi3_assets.olive import legacy_azure as azure
from phi3_assets.olive import legacy_data as data
from phi3_assets.olive.legacy_fields import add_base_model, add_columns, add_defaults, add_method, add_provider, settle
from phi3_assets.olive.legacy_file import plain, read_config
from phi3_assets.olive.legacy_imported import Imported, Line
from phi3_assets.olive.legacy_passes import FINE_TUNING, hint_of, rule_of
from phi3_assets.olive.legacy_rules import RULES
from phi3_assets.olive.legacy_values import taken
from phi3_assets.olive.legacy_view import Data, Leaf, View
from phi3_assets.olive.rule import NotTaken, Rule


def import_config(path: Path) -> Imported:
    """Read a configuration file of Olive, JSON or YAML.

    Raises:
        UserError: It cannot be read, or is no configuration.
    """
    return convert(read_config(path))


def convert(config: Mapping[str, Any]) -> Imported:
    """Make a recipe's fields of a configuration, and say what became of each of its keys.

    Raises:
        UserError: It is nested too deeply to be a configuration.
    """
    view = View(plain(config))
    result = Imported()
    source = data.source_of(view)
    pinned = add_base_model(view, result)
    for leaf in view.leaves():
        result.report.append(_line(leaf, view, source, result))
    _name_environment(result)
    result.executions = azure.executions(view)
    result.fill("dataset_path", source.address, source.missing)
    result.report += pinned
    add_method(view, result)
    add_columns(result)
    add_provider(view, result)
    add_defaults(view, result)
    settle(result)
    return result


def _line(leaf: Leaf, view: View, source: data.Source, result: Imported) -> Line:
    """Take one value, and say what became of it."""
    key = ".".join(leaf.path)
    if azure.holds_secret(leaf.path, leaf.value):
        why = "it holds a secret, which belongs into no file: revoke it, and put the new one into the key vault"
        return Line(key, "dropped", why)
    rule = RULES.find(leaf.place)
    if rule is None and leaf.place[0] == "passes" and RULES.find(leaf.place[:3]) is None:
        rule = rule_of(leaf.place[1], leaf.place[2:])
    of_data = view.data_of(leaf.path)
    if of_data and of_data is not view.training:
        return _beside(key, leaf, rule, of_data, view)
    if rule is None and of_data and data.is_code(of_data) and leaf.place[2:3] == ("load_dataset_config",):
        return Line(key, "dropped", "a parameter of code, which is never run")
    if rule is None:
        return Line(key, "unknown", _unknown(leaf))
    if why := _left_aside(leaf, view):
        return Line(key, "dropped", why)
    if rule.settings:
        return _set(leaf, rule, view, result)
    if of_data and leaf.place[2:3] == ("load_dataset_config",):
        told = source.told.get(leaf.place[3:]) or source.told.get(leaf.place[3:4])
        if told:
            return Line(key, *told)
    if leaf.place[0] == "input_model" and rule.why.startswith("recipe field base_model"):
        return _of_model(key, leaf.value, rule, result)
    return _take(key, leaf.value, rule, result)


def _of_model(key: str, value: Any, rule: Rule, result: Imported) -> Line:
    """What became of what names or pins the base model."""
    name = rule.why.rpartition(" ")[2]
    if name in result.missing:
        return Line(key, "replaced", result.missing[name])
    known = result.values[name]
    return Line(key, rule.verdict, rule.why) if known == value else Line(key, "replaced", f"{rule.why}: {known or '-'}")


def _take(key: str, value: Any, rule: Rule, result: Imported) -> Line:
    """Take the recipe's fields of a value."""
    if rule.fields is None:
        return Line(key, rule.verdict, rule.why)
    if value is None or value == {}:
        return Line(key, "dropped", "null stands for Olive's default")
    try:
        if azure.is_hole(value):
            raise NotTaken("refused", f"a placeholder; {rule.why} is to be set")
        found = {name: taken(name, given) for name, given in rule.fields(value).items()}
        for name, given in found.items():
            if name in result.values and result.values[name] != given:
                raise NotTaken("refused", f"{result.origins[name]} says recipe field {name} already")
    except NotTaken as problem:
        return Line(key, problem.verdict, problem.why)
    result.take(found, key)
    changed = [f"{name}: {given}" for name, given in found.items() if given != value and given != _lower(value)]
    if rule.verdict in ("kept", "renamed") and changed:
        return Line(key, "replaced", f"{rule.why}; {', '.join(changed)}")
    return Line(key, rule.verdict, rule.why)


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _unknown(leaf: Leaf) -> str:
    if leaf.place[0] == "passes" and leaf.place[1:2] not in ((), ("?",)):
        kind, rest = leaf.place[1], leaf.place[2:]
        if RULES.find(("passes", kind, "type")) is None:
            return hint_of(kind, rest)
    return f"no rule for this key.{RULES.hint(leaf.place)}"


def _left_aside(leaf: Leaf, view: View) -> str:
    """Why a value of a pass does not count though its key is known; "" if it does."""
    one = view.pass_of(leaf.path)
    if one is None:
        return ""
    first = next(other for other in view.passes if other.name == one.name)
    if one.path != first.path:
        return "a list of alternatives; a recipe has one, the first"
    chosen = view.fine_tuning
    if chosen and one.type in FINE_TUNING and one.path != chosen.path:
        return f"a recipe trains once, here with the pass {chosen.name}"
    return ""


def _beside(key: str, leaf: Leaf, rule: Rule | None, of_data: Data, view: View) -> Line:
    """A value of a data config that nothing trains on: its parameters may be those of any code."""
    free = leaf.place[2:3] in (("load_dataset_config",), ("pre_process_data_config",))
    if rule is None and not free:
        return Line(key, "unknown", _unknown(leaf))
    why = "data that is not trained on: eval_report scores on held-out rows, and gptq calibrates on the corpus"
    if leaf.place[3:4] in (("data_name",), ("data_files",)) and leaf.place[-1] not in ("type", "datastore_name"):
        address = data.address_of(of_data, view)
        why += f"; this would be dataset_path: {address}" if address else ""
    return Line(key, "dropped", why)


def _set(leaf: Leaf, rule: Rule, view: View, result: Imported) -> Line:
    """Take a setting of Azure, unless it is that of a system that nothing runs on."""
    assert rule.settings is not None
    key, place = ".".join(leaf.path), leaf.place
    fields = rule.settings(leaf.value)
    host = azure.host_of(view)
    if place[0] == "systems" and place[1] != host and fields:
        told = ", ".join(f"{name}: {value}" for name, value in fields.items())
        where = azure.execution_of(place[1], view)
        return Line(key, "dropped", f"passes run on {host or 'no system'}; for {place[1]} set {told} with {where}")
    if azure.is_placeholder(leaf.value):
        result.blanks |= dict.fromkeys(fields, leaf.value)
        return Line(key, rule.verdict, f"{rule.why}, a placeholder to be filled in")
    if problem := azure.problem_with(fields):
        return Line(key, "refused", f"{rule.why} does not take this value: {problem}")
    result.settings |= fields
    return Line(key, rule.verdict, rule.why)


def _name_environment(result: Imported) -> None:
    """Name and version of an environment are one setting."""
    name, version = (result.settings.pop(f"environment_{part}", "") for part in ("name", "version"))
    if name:
        result.settings["environment"] = f"azureml:{name}:{version}"
