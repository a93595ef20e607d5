"""A tiny real chain, made once per session by the real steps: random Phi-3, corpus, adapter, merged, int4."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from phi3_assets.core.recipe import Recipe
from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.core.step import Step, StepContext
from phi3_assets.models import environment
from phi3_assets.steps import BASE_MODEL, LORA_ADAPTER, MERGED_MODEL, ONNX_INT4_MODEL
from phi3_assets_tests.made_once import made_once

environment.prepare()

FACTS = [
    ("What does HTTP status 404 mean?", "The resource was not found at this address."),
    ("What does HTTP status 401 mean?", "The client must sign in first."),
    ("What does HTTP status 403 mean?", "The server understood, but will not do it."),
    ("Which errno is ENOENT?", "No such file or directory."),
    ("Which errno is EACCES?", "Permission denied."),
    ("Which errno is ENOSPC?", "No space left on the device."),
]
PHRASINGS = ["{}", "Tell me: {}", "{} Answer briefly.", "Please help. {}"]


@dataclass
class Made:
    """A step's output directory, its metrics and what it reported while running."""

    path: Path
    metrics: dict[str, Any]
    progress: list[dict[str, float]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


RunStep = Callable[..., Made]


def _once(factory: pytest.TempPathFactory, step: Step, make: Callable[[], Made]) -> Made:
    """What the first process of the test run makes, for all of them."""

    def keep(folder: Path) -> None:
        (folder / "made.json").write_text(json.dumps(asdict(make()), default=str))

    folder = made_once(factory, f"tiny_{step.name}", keep)
    kept = json.loads((folder / "made.json").read_text())
    return Made(**{**kept, "path": Path(kept["path"])})


@pytest.fixture(scope="session")
def run_step(tmp_path_factory: pytest.TempPathFactory) -> RunStep:
    """Run one step's function on given inputs, with recipe fields laid over tiny-test."""

    def run(step: Step, inputs: dict[str, Path] | None = None, work: Path | None = None, **overrides: Any) -> Made:
        root = tmp_path_factory.mktemp(step.name)
        made = Made(root / "output", {})
        recipe = tiny_recipe(**overrides)
        ctx = StepContext(
            params=step.params(recipe),
            settings=step.settings(recipe),
            inputs=inputs or {},
            output=made.path,
            work=work or root / "work",
            cache=root / "cache",
            log=made.log.append,
            progress=lambda **numbers: made.progress.append(numbers),
            note=made.notes.append,
        )
        for directory in (ctx.output, ctx.work, ctx.cache):
            directory.mkdir(exist_ok=True)
        made.metrics = step.load()(ctx)
        return made

    return run


def config_of(hidden_size: int) -> Any:
    """What of a model's configuration decides how rows are laid out."""
    return SimpleNamespace(hidden_size=hidden_size, num_attention_heads=1)


def tiny_recipe(**overrides: Any) -> Recipe:
    """The shipped tiny-test recipe with fields replaced."""
    return load_recipe("tiny-test", overrides)


@dataclass
class Chain:
    """Directories of one artefact of each kind, by the step's name, and the metrics of each."""

    base_model: Path
    formatted_corpus: Path
    lora_adapter: Path
    merged_model: Path
    onnx_int4_model: Path
    metrics: dict[str, dict[str, Any]]

    def inputs(self, *names: str) -> dict[str, Path]:
        """Input directories of a step."""
        return {name: getattr(self, name) for name in names}


@pytest.fixture(scope="session")
def tiny_base(run_step: RunStep, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A random Phi-3 of about 110 k parameters."""
    return _once(tmp_path_factory, BASE_MODEL, lambda: run_step(BASE_MODEL))


@pytest.fixture(scope="session")
def tiny_corpus(tiny_base: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A formatted corpus: three phrasings of each fact to train on, one to test."""
    return made_once(tmp_path_factory, "tiny_corpus", lambda folder: write_corpus(folder, tiny_base.path))


@pytest.fixture(scope="session")
def inputs(tiny_base: Made, tiny_corpus: Path) -> dict[str, Path]:
    """What a training reads."""
    return {"base_model": tiny_base.path, "formatted_corpus": tiny_corpus}


@pytest.fixture(scope="session")
def tiny_adapter(
    tiny_base: Made, tiny_corpus: Path, run_step: RunStep, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    """An adapter trained on the tiny corpus."""
    # Not the fixture `inputs`, which a module may replace by what it tests.
    inputs = {"base_model": tiny_base.path, "formatted_corpus": tiny_corpus}
    return _once(tmp_path_factory, LORA_ADAPTER, lambda: run_step(LORA_ADAPTER, inputs, num_train_epochs=4.0))


@pytest.fixture(scope="session")
def tiny_merged(
    tiny_base: Made, tiny_adapter: Made, run_step: RunStep, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    """Base and adapter merged."""
    inputs = {"base_model": tiny_base.path, "lora_adapter": tiny_adapter.path}
    return _once(tmp_path_factory, MERGED_MODEL, lambda: run_step(MERGED_MODEL, inputs))


@pytest.fixture(scope="session")
def tiny_int4(
    tiny_merged: Made, tiny_corpus: Path, run_step: RunStep, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    """The merged model in int4."""
    inputs = {"merged_model": tiny_merged.path, "formatted_corpus": tiny_corpus}
    return _once(tmp_path_factory, ONNX_INT4_MODEL, lambda: run_step(ONNX_INT4_MODEL, inputs))


@pytest.fixture(scope="session")
def tiny_chain(tiny_base: Made, tiny_corpus: Path, tiny_adapter: Made, tiny_merged: Made, tiny_int4: Made) -> Chain:
    """All of them."""
    made = {
        "base_model": tiny_base,
        "lora_adapter": tiny_adapter,
        "merged_model": tiny_merged,
        "onnx_int4_model": tiny_int4,
    }
    paths = {name: item.path for name, item in made.items()}
    return Chain(formatted_corpus=tiny_corpus, metrics={name: item.metrics for name, item in made.items()}, **paths)


def write_corpus(directory: Path, base_model: Path) -> None:
    """Write train.parquet and test.jsonl as the step formatted_corpus does."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base_model)
    train, test = [], []
    for number, (question, answer) in enumerate(FACTS):
        for phrase, template in enumerate(PHRASINGS):
            messages = [{"role": "user", "content": template.format(question)}]
            prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            prompt_ids = tokenizer.encode(prompt, add_special_tokens=False)
            answer_ids = tokenizer.encode(f"{answer}<|end|>", add_special_tokens=False)
            identity = f"{number}-{phrase}"
            group = int.from_bytes(hashlib.sha256(question.encode()).digest()[:8], "big")
            if phrase == len(PHRASINGS) - 1:
                test.append(
                    {
                        "id": identity,
                        "messages": messages,
                        "question": messages[0]["content"],
                        "answer": answer,
                        "prompt_ids": prompt_ids,
                        "answer_ids": answer_ids,
                    }
                )
            else:
                train.append(
                    {
                        "id": identity,
                        "input_ids": prompt_ids + answer_ids,
                        "labels": [-100] * len(prompt_ids) + answer_ids,
                        "length": len(prompt_ids) + len(answer_ids),
                        "group": group,
                    }
                )
    ids = pa.list_(pa.int32())
    schema = pa.schema(
        [("id", pa.string()), ("input_ids", ids), ("labels", ids), ("length", pa.int32()), ("group", pa.uint64())]
    )
    pq.write_table(pa.Table.from_pylist(train, schema=schema), directory / "train.parquet")
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in test]
    (directory / "test.jsonl").write_text("".join(lines), encoding="utf-8")
