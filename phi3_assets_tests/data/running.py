"""Runs the two data steps on real files with a real, small tokenizer."""

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.core.step import StepContext
from phi3_assets.sample.make_sample import rows
from phi3_assets.steps import FORMATTED_CORPUS, RAW_DATASET

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PHI3 = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + "
    "'<|end|>\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
    "{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
# Looks at contents, like templates that treat reasoning apart.
CURIOUS = (
    "{{ bos_token }}{% for m in messages %}{% set text = m.content %}{% if m.role == 'assistant' %}"
    "{{ '<|assistant|>' }}{% if '!' in text %}{{ '(loud) ' }}{% endif %}{{ text + '<|end|>' }}"
    "{% else %}{{ '<|user|>' + text + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]


@cache
def _tokenizer() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([text for row in rows() for text in row], trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in TOKENS])
    return tokenizer.to_str()


def write_model(folder: Path, template: str = CHATML, end: str = "<|im_end|>", begin: str = "<|im_start|>") -> Path:
    """A model directory as far as the data steps look at it."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_str(_tokenizer())
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>", "bos_token": begin}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(template)
    (folder / "generation_config.json").write_text(
        json.dumps({"eos_token_id": [tokenizer.token_to_id(end), tokenizer.token_to_id("<|endoftext|>")]})
    )
    return folder


class Run:
    """A home directory for the data steps; `ingest` and `corpus` may be run again and again."""

    def __init__(self, home: Path, **overrides: Any) -> None:
        self.home = home
        self.data = home / "datasets"
        self.overrides = overrides
        self.runs = 0
        self.log: list[str] = []
        for name in ("datasets", "test-sets", "cache", "work"):
            (home / name).mkdir(parents=True, exist_ok=True)

    def _context(self, step: Any, inputs: dict[str, Path]) -> StepContext:
        self.runs += 1
        output = self.home / f"{step.name}-{self.runs}"
        output.mkdir()
        params = step.params(load_recipe("tiny-test", {"max_seq_len": 512, **self.overrides}))
        cache = self.home / "cache"
        return StepContext(params, inputs, output, self.home / "work", cache, log=self.log.append)

    def ingest(self) -> dict[str, Any]:
        context = self._context(RAW_DATASET, {"datasets": self.data, "test_sets": self.home / "test-sets"})
        metrics = RAW_DATASET.load()(context)
        assert metrics["rows_read"] == metrics["rows_kept"] + metrics["rows_quarantined"]
        json.dumps(metrics, allow_nan=False)
        self.raw = context.output
        return metrics

    def freeze(self) -> None:
        """What whoever runs the steps does with a new test set."""
        self.set_versions([*self.versions(), (self.raw / "test_set.parquet").read_bytes()])

    def versions(self) -> list[bytes]:
        """The versions in the snapshot, the present one last."""
        return [path.read_bytes() for state in ("earlier", "present") for path in self.version_files(state)]

    def version_files(self, state: str) -> list[Path]:
        return sorted((self.home / "test-sets" / state).glob("*.parquet"))

    def set_versions(self, versions: list[bytes], present: bool = True) -> None:
        """Lay out a snapshot of these; the last is the present one, if there is any."""
        shutil.rmtree(self.home / "test-sets")
        for number, content in enumerate(versions, 1):
            state = "present" if present and number == len(versions) else "earlier"
            (self.home / "test-sets" / state).mkdir(parents=True, exist_ok=True)
            (self.home / "test-sets" / state / f"{number:06d}.parquet").write_bytes(content)

    def corpus(self, model: Path) -> dict[str, Any]:
        context = self._context(FORMATTED_CORPUS, {"raw_dataset": self.raw, "base_model": model})
        metrics = FORMATTED_CORPUS.load()(context)
        json.dumps(metrics, allow_nan=False)
        self.out = context.output
        return metrics

    def records(self) -> list[dict[str, Any]]:
        return pq.read_table(self.raw / "records.parquet").to_pylist()

    def quarantine(self) -> list[dict[str, Any]]:
        return read_jsonl(self.raw / "quarantine.jsonl")

    def train(self) -> list[dict[str, Any]]:
        return pq.read_table(self.out / "train.parquet").to_pylist()

    def tests(self) -> list[dict[str, Any]]:
        return read_jsonl(self.out / "test.jsonl")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_sample(folder: Path, count: int = 60, name: str = "sample.jsonl") -> None:
    """Some rows that no check objects to."""
    lines = [json.dumps({"Question": question, "Best Answer": answer}) for question, answer in rows()[:count]]
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
