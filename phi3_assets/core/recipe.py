"""The recipe: every parameter a run depends on, in one flat, typed, strict record.

It is flat on purpose. The same names stand in a YAML file, in the Dagster launchpad, on the command line
(`phi3 run --set lora_r=16`) and in the identity of each step, so there is nothing to translate between them. Names
are those of Hugging Face and PEFT where they have one. The fields stand in three modules, in the order of the graph:
`recipe_data`, `recipe_model`, and here those of evaluation and gate.
"""

from typing import Literal

import pydantic

from phi3_assets.core.fields import field, use_of
from phi3_assets.core.recipe_model import ModelFields


class Recipe(ModelFields):
    """What a run is made of. Unknown keys are refused; contradictions raise when the recipe is built."""

    # Evaluation
    max_new_tokens: int = field(
        64, "eval_report", "champion_comparison", ge=1, description="Longest generated answer, in tokens."
    )
    test_items: int = field(
        2000,
        "eval_report",
        "champion_comparison",
        ge=0,
        description="Most items of the test set that models are asked, chosen by a hash of their id; 0: all.",
    )
    harder_questions: str = field(
        "",
        asked_by="the plan of eval_report",
        description="Folder of csv files with questions that the test set does not ask (columns Question, Best Answer, "
        "Wrong Answer, Kind, About: the file of the dataset that they are about); a block of the report, and nothing "
        "to the gate. 'sample': those of the sample; empty: none.",
    )
    gate_metric: Literal["nll", "exact_match", "f1"] = field(
        "nll",
        "release_bundle",
        asked_by="the gate",
        description="What must be measurably better than base's and the champion's; nll tells finest.",
    )
    gate_alpha: float = field(
        0.05,
        "release_bundle",
        asked_by="the gate",
        gt=0,
        lt=0.5,
        description="How often a model that is no better may pass for better: than base, per decision; than the "
        "champion, over all decisions on one test set.",
    )
    gate_min_items: int = field(
        20, "release_bundle", asked_by="the gate", ge=2, description="Fewest test items a decision may rest on."
    )
    gate_learnt_answers: bool = field(
        True,
        "release_bundle",
        asked_by="the gate",
        description="Whether int4 must prefer the right answer to that of another question measurably more than base "
        "does; false where style is all that is to be learnt.",
    )
    gate_min_gain_kept: float = field(
        0.95,
        "release_bundle",
        asked_by="the gate",
        ge=0,
        description="Least share of fine-tuning's gain in likelihood over base that int4 must keep.",
    )
    gate_min_stop_rate: float = field(
        0.95,
        "release_bundle",
        asked_by="the gate",
        ge=0,
        le=1,
        description="Least share of int4's answers that must end by themselves.",
    )
    gate_max_int4_loss: float = field(
        0.02,
        "release_bundle",
        asked_by="the gate",
        ge=0,
        le=1,
        description="Most exact match and F1 that int4 may lose against merged, as a share of answers, or what the "
        "test set can tell, if that is more.",
    )
    gate_max_general_perplexity_ratio: float = field(
        4.0,
        "release_bundle",
        asked_by="the gate",
        ge=1,
        description="Most that int4's perplexity of general text may be, as a multiple of base's: what fine-tuning may "
        "make it forget. 4 is 1.39 nats per token.",
    )
    gate_min_effect: float = field(
        0.01,
        asked_by="the champion",
        ge=0,
        description="Least gain in gate_metric over the champion that is worth a promotion: nats per token, or a share "
        "of answers.",
    )
    gate_training_noise: float = field(
        0.01,
        asked_by="the champion",
        ge=0,
        description="Standard deviation of gate_metric between trainings that differ in their seeds alone; "
        "taken until three such retrains are in the champion's history, which then say what it is.",
    )
    gate_max_loss: float = field(
        0.02,
        asked_by="the champion",
        ge=0,
        le=1,
        description="Most exact match, F1, stop rate and valid JSON that a release may lose against the champion and "
        "against the best champion so far, as a share of answers, or what the test set can tell, if that is more.",
    )
    gate_max_nll_loss: float = field(
        0.05,
        asked_by="the champion",
        ge=0,
        description="The same for the likelihood of right answers, in nats per token.",
    )
    gate_max_slice_loss: float = field(
        0.1,
        asked_by="the champion",
        ge=0,
        le=1,
        description="Most exact match and F1 that may be lost on a slice of the test set: a source file, short or long "
        "answers, items old or new to the champion.",
    )
    gate_max_perplexity_growth: float = field(
        1.15,
        asked_by="the champion",
        ge=1,
        description="Most that int4's perplexity of general text may be, as a multiple of the champion's and of the "
        "best champion's so far.",
    )
    gate_max_bytes_growth: float = field(
        1.1,
        asked_by="the champion",
        gt=0,
        description="Most that int4's bytes may be, as a multiple of the champion's and of the smallest champion's.",
    )
    gate_min_speed_kept: float = field(
        0.7,
        asked_by="the champion",
        ge=0,
        description="Least decoding speed, as a multiple of the champion's, on one machine in one run. Neighbours on "
        "that machine move it, so it is loose.",
    )

    @pydantic.model_validator(mode="after")
    def _decidable(self) -> "Recipe":
        if 0 < self.test_items < self.gate_min_items:
            raise ValueError(
                f"test_items: must be 0 or at least gate_min_items, {self.gate_min_items}, or no model could ever pass"
            )
        return self


def fields_of(step: str) -> tuple[str, ...]:
    """Names of the fields that can change this step's result."""
    return tuple(name for name, info in Recipe.model_fields.items() if step in use_of(info).steps)


def settings_of(step: str) -> tuple[str, ...]:
    """Names of the fields that this step's function is handed, and that cannot change its result."""
    return tuple(name for name, info in Recipe.model_fields.items() if step in use_of(info).setting_of)
