"""Olive's passes that a recipe has no step for: which there were from 0.4 to 0.13, their keys, and what to do instead.

`olive_passes.json` holds the names and keys of the passes, collected from the wheels of those versions.
"""

import json
import re
from functools import cache
from pathlib import Path

from phi3_assets.olive.legacy_find import near
from phi3_assets.olive.rule import Rule, dropped

METHODS = ("lora", "dora", "qlora")
# The last four train too, but nothing that a recipe can say.
FINE_TUNING = (*METHODS, "loha", "lokr", "loftq", "sdlora")
_STEPS = ("modelbuilder", "mergeadapterweights", "gptq", "gptqmodel", "gptqquantizer")
# Keys that every pass has.
COMMON = {"host", "evaluator", "disable_search", "output_name", "clean_run_cache", "accelerator", "host_device"}
COMMON |= {"user_script", "script_dir", "run_on_target"}

_TABLE = Path(__file__).with_name("olive_passes.json")
_GPTQ = "set int4_algorithm: gptq for weights chosen on the corpus, or k_quant_mixed with int4_symmetric: false"
_INSTEAD = {
    "selectivemixed": "which layers get 8 bits is measured, as far as recipe field int4_budget pays for, with gptq",
    r"gptq|awq|rtn|kquant|quarot|spinquant|autoclip|sparsegpt|slicegpt|mixedprecisionover|quark|hqq|"
    r"matmul4|bnb4|nvmodelopt|rotate|loftq": f"the step onnx_int4_model quantises by itself; {_GPTQ}",
    r"openvino|qnn|snpe|qairt|vitis|ryzen|trt|tensorrt|aimet|epcontext|staticllm|splitmodel|capturesplit|nchw": (
        "it is for other hardware than ONNX Runtime's cpu and cuda, which execution_provider chooses between"
    ),
    r"extractadapters|convertadapters": "the adapter is merged into the model; it also stays in gen-model/lora_adapter",
    r"quantizationaware|inc\w*quantization|static|dynamicquantization|onnxquantization|floattofloat16|mixedprecision": (
        "the step onnx_int4_model makes 4-bit weights and 8-bit activations of the merged model"
    ),
    r"perftuning|sessionparams": "ONNX Runtime GenAI is run with its own settings; `phi3 chat` and eval_report time it",
    r"graphsurgeries": "the step onnx_int4_model lets tied embeddings share their weights by itself",
    r"discrepancy": "eval_report compares int4 with the merged model",
}
_OTHERWISE = "a recipe fine-tunes, merges and builds int4 for ONNX Runtime GenAI: ModelBuilder exports and optimises"


@cache
def known_passes() -> dict[str, tuple[str, frozenset[str]]]:
    """Name and keys of each pass, by its name in small letters."""
    table = json.loads(_TABLE.read_text(encoding="utf-8"))
    return {name.lower(): (name, frozenset(keys)) for name, keys in table.items()}


def rule_of(kind: str, rest: tuple[str, ...]) -> Rule | None:
    """What becomes of a key of a pass that is no step.

    Args:
        kind: The pass's type in small letters.
        rest: The key inside of the pass, such as ("type",) or ("overrides", "lm_head", "bits").
    """
    name, keys = known_passes().get(kind, ("", frozenset()))
    if not name:
        return dropped("of a pass that is not known") if kind != "?" and rest and rest != ("type",) else None
    if not rest:
        return None
    if rest == ("type",):
        return dropped(f"Olive's pass {name}: {_instead(kind)}")
    if rest[0] in keys or rest[0] in COMMON or rest[0] == "extra_args":
        kept = kind in FINE_TUNING or kind in _STEPS
        return dropped(f"a recipe has no field for it; {name}'s default holds" if kept else f"of the pass {name}")
    return None


def hint_of(kind: str, rest: tuple[str, ...]) -> str:
    """What an unknown pass, or an unknown key of a pass that is no step, is said to be."""
    name, keys = known_passes().get(kind, ("", frozenset()))
    if name:
        return f"Olive's pass {name} has no such key, from 0.4 to 0.13.{near(rest[0], sorted(keys)) if rest else ''}"
    close = near(kind, sorted(name for name, _ in known_passes().values()))
    return f"no pass of Olive 0.4 to 0.13 has this name.{close}"


def _instead(kind: str) -> str:
    return next((why for pattern, why in _INSTEAD.items() if re.search(pattern, kind)), _OTHERWISE)
