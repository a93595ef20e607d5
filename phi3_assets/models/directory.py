"""A directory that holds one model in the Hugging Face layout: is it whole, what is in it, how is it copied.

Only safetensors are taken. Pickled weights run code when they are opened, and so does a repository's own modelling
code: neither is ever loaded.
"""

import json
import struct
from math import prod
from pathlib import Path
from typing import Any

from phi3_assets.core.errors import UserError
from phi3_assets.core.files import copy_file, read_json, write_json
from phi3_assets.models.measured import ModelMetrics
from phi3_assets.models.trust import LEFT_OUT, without_foreign_code

# Files of a model directory that are needed or worth keeping. A repository's Python files are not among them.
PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "LICEN[CS]E*", "NOTICE*")
_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def check_model_directory(directory: Path, origin: str) -> None:
    """Refuse a directory that is not a whole model in safetensors.

    Args:
        directory: The directory.
        origin: How the user named it, for errors.

    Raises:
        UserError: Says what is missing and the way out.
    """
    names = sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []
    if not names:
        raise UserError(
            f"Base model {origin} is not a directory or is empty. It must hold config.json, *.safetensors, "
            "tokenizer.json."
        )
    if "config.json" not in names:
        raise UserError(
            f"Base model {origin} has no config.json, so it is not a Hugging Face model directory. "
            "Name the folder that holds config.json and *.safetensors."
        )
    if not any(name.endswith(".safetensors") for name in names):
        pickles = [name for name in names if name.endswith(_PICKLES)]
        raise UserError(f"Base model {origin} has no *.safetensors. " + _pickle_advice(pickles))
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        try:
            wanted = set(read_json(index)["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"Base model {origin}: {index.name} names no weights ({error!r:.100}).") from None
        if missing := sorted(wanted - set(names)):
            raise UserError(f"Base model {origin} is not whole: {', '.join(missing)} missing. Download it again.")
    if not {"tokenizer.json", "tokenizer.model"} & set(names):
        raise UserError(
            f"Base model {origin} has no tokenizer.json or tokenizer.model. Copy the tokenizer's files there."
        )


def copy_model(source: Path, target: Path) -> None:
    """Copy a checked model directory, without what makes a later reader fetch or run code (see `models.trust`).

    Copies and no hard links: an artefact must not change when a file of the user's, of the hub's cache or of another
    artefact does.

    Args:
        source: A directory that passed `check_model_directory`.
        target: An empty directory.
    """
    names = {path.name for pattern in PATTERNS for path in source.glob(pattern)}
    for name in sorted(name for name in names if name not in LEFT_OUT and not name.startswith((".", "_"))):
        cleaned = without_foreign_code(source / name)
        if cleaned is None:
            copy_file(source / name, target / name)
        else:
            write_json(target / name, cleaned)


def describe(directory: Path) -> ModelMetrics:
    """Numbers and names of a model directory, from its configuration and the headers of its weights.

    Raises:
        UserError: transformers does not know the architecture without the repository's own code.
    """
    from transformers import AutoConfig

    from phi3_assets.models.end_tokens import end_token_ids

    try:
        config = AutoConfig.from_pretrained(directory)
    except ValueError as error:
        raise UserError(f"Base model: its architecture is not one that transformers knows natively: {error}") from None
    counts: dict[str, int] = {}
    for tensor in tensor_headers(directory).values():
        counts[tensor["dtype"]] = counts.get(tensor["dtype"], 0) + prod(tensor["shape"])
    return ModelMetrics(
        parameters=sum(counts.values()),
        architecture=(config.architectures or ["unknown"])[0],
        layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        vocabulary=config.vocab_size,
        context_length=config.max_position_embeddings,
        eos_token_ids=end_token_ids(directory),
        dtype=_DTYPES.get(widest := max(counts, key=lambda name: counts[name]), widest),
        weights_bytes=sum(file.stat().st_size for file in directory.glob("*.safetensors")),
    )


def tensor_headers(directory: Path) -> dict[str, Any]:
    """Each tensor in the directory's *.safetensors by name: a mapping of "dtype", "shape" and "data_offsets"."""
    return {
        name: tensor
        for file in sorted(directory.glob("*.safetensors"))
        for name, tensor in safetensors_header(file).items()
    }


def safetensors_header(file: Path) -> dict[str, Any]:
    """Name, dtype and shape of each tensor; layout: https://github.com/huggingface/safetensors#format."""
    with file.open("rb") as source:
        (length,) = struct.unpack("<Q", source.read(8))
        header: dict[str, Any] = json.loads(source.read(length))
    header.pop("__metadata__", None)
    return header


def _pickle_advice(pickles: list[str]) -> str:
    if not pickles:
        return "Save the model there with model.save_pretrained(directory)."
    return (
        f"It holds {', '.join(pickles[:3])}, but pickled weights can run code when opened and are refused. "
        'If you trust the source, convert them once: `python -c "from transformers import AutoModelForCausalLM as M; '
        "M.from_pretrained('OLD').save_pretrained('NEW')\"`, add the tokenizer's files, then name NEW."
    )


def check_no_path(directory: Path, *paths: Path) -> None:
    """Refuse text files that name a directory of this machine: the artefact must be the same wherever it is made.

    Raises:
        RuntimeError: Names the file.
    """
    for file in sorted(directory.rglob("*")):
        if file.suffix in {".json", ".txt", ".jinja", ".md"}:
            text = file.read_text(encoding="utf-8")
            if any(str(path) in text for path in paths):
                raise RuntimeError(f"{file.name} names a directory of this machine.")
