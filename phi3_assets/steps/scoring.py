"""Scoring of the four variants, each once for each test set and machine; shared by the steps that compare models."""

import gc
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from phi3_assets.core.errors import UserError
from phi3_assets.core.forecast import Forecast, MemoryMetrics
from phi3_assets.core.step import installed_versions
from phi3_assets.evaluation import torch_scorer
from phi3_assets.evaluation.batching import scoring_bytes
from phi3_assets.evaluation.general import GeneralSuite
from phi3_assets.evaluation.int4_scores import score_int4
from phi3_assets.evaluation.items import Item
from phi3_assets.evaluation.kept_scores import KeptScores, VariantScores, scores_key
from phi3_assets.evaluation.speed import Speed, measure_apart
from phi3_assets.models.end_tokens import end_token_ids
from phi3_assets.models.sizes import memory_bytes
from phi3_assets.steps import EVAL_REPORT

MODEL_INPUTS = {
    "base": ("base_model",),
    "adapter": ("base_model", "lora_adapter"),
    "merged": ("merged_model",),
    "int4": ("onnx_int4_model",),
}
Tick = Callable[[int], None]


class Scoring:
    """Puts one test set to models."""

    def __init__(
        self,
        kept: KeptScores,
        items: Sequence[Item],
        suite: GeneralSuite,
        max_new_tokens: int,
        log: Callable[[str], None] = print,
    ) -> None:
        """`items` and `suite` are in the tokens of the models; answers have at most `max_new_tokens`."""
        self.memory = MemoryMetrics()
        """Of the variant in torch that took most; empty where all were known from before."""
        self._log = log
        self._kept = kept
        self._items = items
        self._suite = suite
        self._max_new_tokens = max_new_tokens
        self._median = sorted((item.prompt_ids for item in items), key=len)[len(items) // 2]

    def score(self, variant: str, inputs: Mapping[str, Path], tick: Tick) -> tuple[VariantScores, Speed, bool]:
        """Scores and speed of a variant, and whether both were known from before.

        Raises:
            UserError: Its configuration names no end token, or it needs more memory than there is.
        """
        folders = [inputs[name] for name in MODEL_INPUTS[variant]]
        if variant == "int4":
            # First, for a process that has scored holds memory that the one that is measured may want.
            speed, was_known = self._kept.get(
                self._key(folders, "speed"), lambda: self.int4_speed(folders[0]).to_dict()
            )
            scores, known = self.int4(folders[0], tick)
            return scores, Speed(**speed), known and was_known
        found, known = self._kept.get(self._key(folders, "both"), lambda: self._torch(variant, folders, tick))
        return VariantScores.from_dict(found["scores"]), Speed(**found["speed"]), known

    def int4(self, folder: Path, tick: Tick = lambda _: None) -> tuple[VariantScores, bool]:
        """Scores of an int4 folder, and whether they were known from before.

        Raises:
            UserError: Its configuration names no end token.
        """

        def make() -> dict[str, Any]:
            return asdict(score_int4(folder, self._items, self._suite, self._max_new_tokens, tick))

        found, known = self._kept.get(self._key([folder], "scores"), make)
        gc.collect()
        return VariantScores.from_dict(found), known

    def int4_speed(self, folder: Path) -> Speed:
        """Speed of an int4 folder now."""
        return measure_apart(folder, self._median)

    def _torch(self, variant: str, folders: Sequence[Path], tick: Tick) -> dict[str, Any]:
        ends = end_token_ids(folders[0])
        if not ends:
            raise UserError(f"Variant {variant}: its configuration names no end token, so no answer could ever stop.")
        forecast = self._forecast(variant, folders)
        forecast.begin(folders[0], self._log)
        model = torch_scorer.load_model(*folders)
        speed = torch_scorer.speed(model, self._median)
        scores = VariantScores(
            torch_scorer.score(model, self._items, ends, self._max_new_tokens, tick),
            self._suite.summarise(torch_scorer.losses(model, self._suite.passages)),
        )
        del model
        gc.collect()
        took = forecast.metrics()
        if (took.estimated_memory_bytes or 0) > (self.memory.estimated_memory_bytes or 0):
            self.memory = took
        return {"scores": asdict(scores), "speed": speed.to_dict()}

    def _forecast(self, variant: str, folders: Sequence[Path]) -> Forecast:
        import torch
        from transformers import AutoConfig

        if torch.cuda.is_available():  # in this machine's memory are the weights alone, on their way
            needed = sum(memory_bytes(folder) for folder in folders)
        else:
            config = AutoConfig.from_pretrained(folders[0])
            number = torch_scorer.CPU_NUMBER_BYTES
            needed = sum(memory_bytes(folder, number) for folder in folders)
            needed += scoring_bytes(config, number, self._items, self._suite.passages, self._max_new_tokens)
        return Forecast(f"Evaluating {variant}", needed, 0, "Run the step on a machine with more memory.")

    def _key(self, folders: Sequence[Path], what: str) -> str | None:
        made_with = [what, EVAL_REPORT.code_version, installed_versions(EVAL_REPORT.libraries)]
        return scores_key(folders, self._items, self._suite, self._max_new_tokens, made_with)


def load_tokenizer(base_model: Path) -> Any:
    """The base model's own tokenizer, the same for all variants."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base_model, local_files_only=True)


def context_tokens(base_model: Path) -> int:
    """Longest sequence that the model takes, in tokens."""
    config = json.loads((base_model / "config.json").read_text(encoding="utf-8"))
    return int(config["max_position_embeddings"])


def check_lengths(items: Sequence[Item], base_model: Path, max_new_tokens: int) -> None:
    """Refuse items that do not fit into the model's context.

    Raises:
        UserError: Names the first such item.
    """
    context = context_tokens(base_model)
    for item in items:
        needed = len(item.prompt_ids) + max(len(item.answer_ids), max_new_tokens)
        if needed > context:
            raise UserError(
                f"Test item {item.id} needs {needed} tokens (prompt {len(item.prompt_ids)}, answer "
                f"{len(item.answer_ids)}, max_new_tokens {max_new_tokens}); the model's context is {context}. "
                "Lower max_new_tokens or max_seq_len in the recipe."
            )
