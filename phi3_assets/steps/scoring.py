"""Scoring of the four variants, each once for each test set and machine; shared by the steps that compare models."""

import gc
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from phi3_assets.core.errors import UserError
from phi3_assets.core.forecast import Forecast, MemoryMetrics
from phi3_assets.core.machine import device_name
from phi3_assets.core.memory import gib
from phi3_assets.core.step import installed_versions
from phi3_assets.evaluation import torch_scorer
from phi3_assets.evaluation.batching import needed_bytes
from phi3_assets.evaluation.general import GeneralSuite
from phi3_assets.evaluation.int4_scores import score_int4
from phi3_assets.evaluation.items import Item
from phi3_assets.evaluation.kept_scores import KeptScores, VariantScores, scores_key
from phi3_assets.evaluation.speed import Speed, measure_apart
from phi3_assets.models import genai
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


@dataclass(frozen=True)
class Scored:
    """What came of one variant.

    Attributes:
        scores: Of all items and of general text.
        speed: For one user.
        device: Name of the processor or GPU that computed.
        known: Whether all was known from before.
    """

    scores: VariantScores
    speed: Speed
    device: str
    known: bool


class Scoring:
    """Puts one test set to models."""

    def __init__(
        self,
        kept: KeptScores,
        items: Sequence[Item],
        suite: GeneralSuite,
        max_new_tokens: int,
        log: Callable[[str], None],
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
        self._on_gpu: bool | None = None

    def score(self, variant: str, inputs: Mapping[str, Path], tick: Tick) -> Scored:
        """Score a variant, and measure its speed.

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
            return Scored(scores, Speed(**speed), device_name(on_gpu=genai.for_gpu(folders[0])), known and was_known)

        def make() -> dict[str, Any]:
            if self._on_gpu is None:  # the largest of them decides for all: one table, one arithmetic
                self._on_gpu = self._fits_gpu([inputs[name] for name in MODEL_INPUTS["adapter"] if name in inputs])
            return self._torch(variant, folders, tick, on_gpu=self._on_gpu)

        found, known = self._kept.get(self._key(folders, "both"), make)
        return Scored(VariantScores.from_dict(found["scores"]), Speed(**found["speed"]), found["device"], known)

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

    def _torch(self, variant: str, folders: Sequence[Path], tick: Tick, *, on_gpu: bool) -> dict[str, Any]:
        ends = end_token_ids(folders[0])
        if not ends:
            raise UserError(f"Variant {variant}: its configuration names no end token, so no answer could ever stop.")
        # On a GPU, this machine's memory has the weights alone, on their way.
        needed = sum(map(memory_bytes, folders)) if on_gpu else self._needed(folders, torch_scorer.CPU_NUMBER_BYTES)
        forecast = Forecast(f"Evaluating {variant}", needed, 0)
        forecast.begin(folders[0], self._log)
        model = torch_scorer.load_model(*folders, on_gpu=on_gpu)
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
        return {"scores": asdict(scores), "speed": speed.to_dict(), "device": device_name(on_gpu=on_gpu)}

    def _fits_gpu(self, folders: Sequence[Path]) -> bool:
        import torch

        if not torch.cuda.is_available():
            return False
        needed = self._needed(folders)
        free = torch.cuda.mem_get_info()[0]
        if needed > free:
            self._log(
                f"Base, adapter and merged are scored on the CPU: on the GPU they need {gib(needed)}, and of "
                f"its memory {gib(free)} are free"
            )
        return needed <= free

    def _needed(self, folders: Sequence[Path], number_bytes: int | None = None) -> int:
        return needed_bytes(folders, number_bytes, self._items, self._suite.passages, self._max_new_tokens)

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
