"""Which tokens end an answer: one rule, read by the corpus that teaches them and by every runtime that stops there.

They stand in generation_config.json of base_model and of all that is made of it. Published models name them in up to
three files that need not agree: Phi-3-mini's config.json knows one of three, Llama-3's generation_config.json once
lacked the very one that its chat template writes. So the step base_model makes that file complete, and nobody else
decides.
"""

import json
from pathlib import Path
from typing import Any

from phi3_assets.core.errors import UserError
from phi3_assets.core.files import write_json

_FILE = "generation_config.json"


def end_token_ids(model: Path) -> list[int]:
    """Ids of the tokens that end an answer of a Hugging Face model directory; empty: nothing names one."""
    return _named(model / _FILE) or _named(model / "config.json")


def genai_end_token_ids(model: Path) -> list[int]:
    """Ids of the tokens at which ONNX Runtime GenAI ends an answer, from genai_config.json."""
    ids = json.loads((model / "genai_config.json").read_text(encoding="utf-8"))["model"]["eos_token_id"]
    return ids if isinstance(ids, list) else [ids]


def complete_end_tokens(model: Path) -> list[str]:
    """Name every end token in generation_config.json: those of config.json and the tokenizer's eos_token too.

    Args:
        model: Directory of a base model that is being made; no other file of it is changed.

    Returns:
        The tokens that were missing there, as text.
    """
    from tokenizers import Tokenizer

    named = end_token_ids(model)
    if not (model / "tokenizer.json").is_file():
        return []
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    eos = _read(model / "tokenizer_config.json").get("eos_token")
    of_tokenizer = tokenizer.token_to_id(eos["content"] if isinstance(eos, dict) else eos or "")
    every = list(dict.fromkeys([*named, *_named(model / "config.json")]))
    if of_tokenizer is not None and of_tokenizer not in every:
        every.append(of_tokenizer)
    if every == named:
        return []
    content = {**_read(model / _FILE), "eos_token_id": every}
    write_json(model / _FILE, content)
    return [tokenizer.id_to_token(token) or str(token) for token in every if token not in named]


def write_genai_end_tokens(path: Path, ids: list[int]) -> None:
    """Name every end token in a genai_config.json: the builder kept one of Phi-3's three, and the model talked on.

    Raises:
        UserError: There are none.
    """
    if not ids:
        raise UserError(
            "Nothing in the model says which token ends an answer, so none could ever stop: set eos_token_id in the "
            "base model's generation_config.json."
        )
    config = _read(path)
    config["model"]["eos_token_id"] = ids if len(ids) > 1 else ids[0]
    write_json(path, config)


def _named(path: Path) -> list[int]:
    found = _read(path).get("eos_token_id")
    return found if isinstance(found, list) else [] if found is None else [found]


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
