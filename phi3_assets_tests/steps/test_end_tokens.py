"""Where an answer ends is one fact: what the corpus teaches as an end, every runtime stops at."""

import json
import shutil
from pathlib import Path

import pytest

from phi3_assets.chat.engines import TorchEngine
from phi3_assets.data.tokens.model_tokens import load_model_tokens
from phi3_assets.steps import BASE_MODEL, MERGED_MODEL, ONNX_INT4_MODEL
from phi3_assets_tests.steps.conftest import Made, RunStep


@pytest.fixture
def disagreeing(tiny_base: Made, tmp_path: Path) -> Path:
    """A model whose generation_config.json names <|endoftext|> alone, while its template ends answers with <|end|>.

    So was Meta-Llama-3-8B-Instruct when it came out: https://huggingface.co/meta-llama/Meta-Llama-3-8B-Instruct
    named 128001, and its template wrote 128009.
    """
    mine = tmp_path / "mine"
    shutil.copytree(tiny_base.path, mine)
    generation = json.loads((mine / "generation_config.json").read_text())
    (mine / "generation_config.json").write_text(json.dumps({**generation, "eos_token_id": 0}))
    tokenizer = json.loads((mine / "tokenizer_config.json").read_text())
    (mine / "tokenizer_config.json").write_text(json.dumps({**tokenizer, "eos_token": "<|end|>"}))
    return mine


def test_what_is_taught_as_an_end_ends_every_runtime(disagreeing: Path, tiny_adapter: Made, run_step: RunStep) -> None:
    """The corpus took the tokenizer's end token too and taught it, and int4 stopped at that of the other file alone."""
    mine = {"base_model_directory": disagreeing}
    base = run_step(BASE_MODEL, mine, base_model="./mine", base_model_revision="")
    merged = run_step(MERGED_MODEL, {"base_model": base.path, "lora_adapter": tiny_adapter.path})
    int4 = run_step(ONNX_INT4_MODEL, {"merged_model": merged.path})
    taught = load_model_tokens(base.path).end_ids
    assert taught == (0, 3)
    assert json.loads((int4.path / "genai_config.json").read_text())["model"]["eos_token_id"] == [0, 3]
    for model in (base.path, merged.path):
        assert set(TorchEngine("base", model).ends) == {0, 3}
        # What plain transformers stops at, as the scripts in inferences/ do.
        assert json.loads((model / "generation_config.json").read_text())["eos_token_id"] == [0, 3]
    assert any("<|end|> ends an answer" in line and "generation_config.json" in line for line in base.log)


def test_the_users_own_file_stays_as_it_is(disagreeing: Path, run_step: RunStep) -> None:
    """The files of a downloaded model are linked; writing through the link would change the cache."""
    run_step(BASE_MODEL, {"base_model_directory": disagreeing}, base_model="./mine", base_model_revision="")
    assert json.loads((disagreeing / "generation_config.json").read_text())["eos_token_id"] == 0
