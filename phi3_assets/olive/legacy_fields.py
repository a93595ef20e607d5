"""Fields of the recipe that no single key of an Olive configuration says: base model, method, columns, defaults."""

import re

from phi3_assets.core.recipe import Recipe
from phi3_assets.olive.configs import PROVIDERS
from phi3_assets.olive.legacy_imported import Imported, Line
from phi3_assets.olive.legacy_model import base_model_of, revision_of
from phi3_assets.olive.legacy_pass_rules import BIG_LAYERS, GPTQ
from phi3_assets.olive.legacy_passes import METHODS
from phi3_assets.olive.legacy_rules import DEFAULTS, GPTQ_DEFAULTS
from phi3_assets.olive.legacy_view import View
from phi3_assets.olive.legacy_walk import items, mapping

METHOD = "<lora, dora or qlora>"


def add_base_model(view: View, result: Imported) -> list[Line]:
    """What training starts from, and what pins it; with a line where that is not the configuration's own."""
    input_model = view.config.get("input_model")
    base_model, missing = base_model_of(input_model)
    result.fill("base_model", base_model, missing)
    revision, why = ("", "") if missing else revision_of(input_model, base_model)
    result.fill("base_model_revision", revision, "" if revision else why)
    told = f"{revision}, {why}" if revision else why
    return [Line("", "added", f"base_model_revision: {told}")] if why else []


def add_method(view: View, result: Imported) -> None:
    """Without a pass that trains, nothing is; one that a recipe has no method for is asked for."""
    if view.fine_tuning is None:
        result.add({"method": "none"}, "no pass of the configuration trains")
    elif view.fine_tuning.type not in METHODS:
        name = view.fine_tuning.values["type"]
        result.fill("method", METHOD, f"a recipe has no {name}: name lora, dora or qlora as method, in place of it")


def add_columns(result: Imported) -> None:
    """A template tells question and answer apart by its two placeholders; with others it is not taken."""
    template = result.values.get("text_template")
    if template is None:
        return
    names = re.findall(r"{([^{}]*)}", template)
    columns = [result.values.get(field) for field in ("question_column", "answer_column")]
    if len(names) == 1 and names[0].casefold() == "text" and template.strip() == f"{{{names[0]}}}":
        del result.values["text_template"]
        result.add({"dataset_shape": "text"}, "the template is the column alone")
    elif len(names) != 2 or names[0] == names[1]:
        held = ", ".join(f"{{{name}}}" for name in names[:5]) or "none"
        result.refuse(
            "text_template",
            f"a template holds the question's column and then the answer's, each once; this one holds {held}. Join "
            "columns in the data, and set question_column, answer_column and text_template",
        )
    elif columns == [None, None]:
        named = {"question_column": names[0], "answer_column": names[1]}
        result.add(named, "the placeholders of text_template, in their order")
    elif columns != names:
        result.refuse(
            "text_template",
            f"it holds {{{names[0]}}} and then {{{names[1]}}}, while question_column and answer_column are "
            f"{columns[0]!r} and {columns[1]!r}",
        )


def add_provider(view: View, result: Imported) -> None:
    """The execution provider of the system that is the target, or else the engine's."""
    system = mapping(view.systems.get(view.system_of("target")))
    accelerators = system.get("accelerators") or mapping(system.get("config")).get("accelerators")
    found = [name for item in items(accelerators) for name in items(mapping(item).get("execution_providers"))]
    providers = [str(name[0] if isinstance(name, list) and name else name) for name in found]
    providers = providers or [str(name) for name in items(view.of_engine("execution_providers"))]
    if not providers:
        return
    known = [short for short, name in PROVIDERS.items() if name in providers]
    result.values["execution_provider"] = "cuda" if "cuda" in known else "cpu"
    if not known:
        result.report.append(
            Line("", "added", f"execution_provider: cpu; a recipe's model runs on cpu or cuda, not on {providers[0]}")
        )


def add_defaults(view: View, result: Imported) -> None:
    """What Olive does where the configuration is silent and the recipe's default would do otherwise."""
    if view.fine_tuning is not None:
        if view.fine_tuning.type in ("qlora", "loftq"):
            result.values["target_modules"] = list(BIG_LAYERS)
            result.report.append(
                Line(
                    "",
                    "added",
                    "target_modules: Olive's QLoRA adapts every linear layer, whatever its configuration says",
                )
            )
        strategy = "line-by-line" if _is_old(view) else "join"
        for name, value in {**DEFAULTS, "strategy": strategy}.items():
            if name not in result.values:
                result.add({name: value}, "Olive's default where none is given")
    if any(one.type in GPTQ for one in view.passes):
        for name, value in GPTQ_DEFAULTS.items():
            if name not in result.values:
                result.add({name: value}, "the default of Olive's Gptq")


def settle(result: Imported) -> None:
    """Build the recipe; fields that contradict each other are settled first, and said."""
    algorithm = result.values.get("int4_algorithm", "")
    if algorithm.startswith("k_quant") and result.values.get("int4_symmetric", True):
        why = f"int4_symmetric must be false with int4_algorithm {algorithm}: the model would babble"
        if "int4_symmetric" in result.origins:
            result.refuse("int4_symmetric", why)
        result.add({"int4_symmetric": False}, why)
    result.values = {name: result.values[name] for name in Recipe.model_fields if name in result.values}
    result.recipe()


def _is_old(view: View) -> bool:
    """Whether a configuration is of Olive before 0.7, where texts were not joined unless it says so."""
    old = {"hf_config", "params_config", "component_kwargs", "corpus_strategy", "source_max_len", "dataset_type"}
    return any(old & set(leaf.path) for leaf in view.leaves())
