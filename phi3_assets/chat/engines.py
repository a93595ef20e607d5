"""Opening a variant: torch for base, base + adapter and merged, ONNX Runtime GenAI for int4."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from phi3_assets.chat import Engine, Message
from phi3_assets.core.errors import UserError, nearest
from phi3_assets.evaluation import torch_scorer
from phi3_assets.models import genai
from phi3_assets.models.end_tokens import end_token_ids, genai_end_token_ids

INPUTS = {
    "base": ("base_model",),
    "adapter": ("base_model", "lora_adapter"),
    "merged": ("merged_model",),
    "int4": ("onnx_int4_model",),
}


class TorchEngine:
    """A Hugging Face directory, with or without an adapter over it."""

    def __init__(self, variant: str, directory: Path, adapter: Path | None = None) -> None:
        from transformers import AutoTokenizer

        self.variant = variant
        self._model = torch_scorer.load_model(directory, adapter)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        self.ends = set(end_token_ids(directory))
        self.context_tokens: int = self._model.config.max_position_embeddings

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """See `Engine.encode`."""
        text = self._tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
        ids: list[int] = self._tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def generate(self, prompt_ids: Sequence[int], max_new_tokens: int) -> Iterator[int]:
        """See `Engine.generate`."""
        return islice(torch_scorer.greedy(self._model, prompt_ids), max_new_tokens)

    def text_stream(self) -> Callable[[int], str]:
        """See `Engine.text_stream`."""
        from tokenizers.decoders import DecodeStream

        decoder = DecodeStream(skip_special_tokens=True)
        return lambda token: decoder.step(self._tokenizer.backend_tokenizer, token) or ""


class GenaiEngine:
    """An ONNX Runtime GenAI folder: what a device runs."""

    def __init__(self, directory: Path, variant: str = "int4") -> None:
        import onnxruntime_genai

        self.variant = variant
        self._model = genai.load_model(directory)
        self._tokenizer = onnxruntime_genai.Tokenizer(self._model)
        self.ends = set(genai_end_token_ids(directory))
        config = json.loads((directory / "genai_config.json").read_text(encoding="utf-8"))
        self.context_tokens: int = config["model"]["context_length"]

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """See `Engine.encode`."""
        text = self._tokenizer.apply_chat_template(json.dumps(list(messages)), add_generation_prompt=True)
        return [int(token) for token in self._tokenizer.encode(text)]

    def generate(self, prompt_ids: Sequence[int], max_new_tokens: int) -> Iterator[int]:
        """See `Engine.generate`."""
        return genai.greedy(self._model, prompt_ids, max_new_tokens)

    def text_stream(self) -> Callable[[int], str]:
        """See `Engine.text_stream`."""
        decode: Callable[[int], str] = self._tokenizer.create_stream().decode
        return decode


def check_variant(variant: str, directories: Mapping[str, Path]) -> None:
    """Refuse a variant that cannot be opened.

    Args:
        variant: base, adapter, merged or int4.
        directories: Artefact directories by kind.

    Raises:
        UserError: No such variant, or an artefact it needs is not there.
    """
    if variant not in INPUTS:
        raise UserError(
            f"There is no variant {variant!r} to talk to.{nearest(variant, list(INPUTS))} Choose {', '.join(INPUTS)}."
        )
    missing = [name for name in INPUTS[variant] if name not in directories]
    if missing:
        raise UserError(f"Variant {variant} needs {' and '.join(missing)}: materialise it first, with `phi3 run`.")


def open_engine(variant: str, directories: Mapping[str, Path]) -> Engine:
    """Open a variant.

    Args:
        variant: base, adapter, merged or int4.
        directories: Artefact directories by kind: base_model, lora_adapter, merged_model, onnx_int4_model; those that
            `INPUTS` names for the variant are needed.

    Raises:
        UserError: See `check_variant`.
    """
    check_variant(variant, directories)
    model, *over = (directories[name] for name in INPUTS[variant])
    return GenaiEngine(model) if variant == "int4" else TorchEngine(variant, model, *over)
