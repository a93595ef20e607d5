"""A tiny random Phi-3 with a tokenizer, an adapter, its merge and its GenAI exports, made once per session.

A pytest plugin: test modules that use it name it in `pytest_plugins`, and the chain is made once for all of them. The
adapter is random, not trained: scorers must agree on any weights.
"""

import contextlib
import json
import os
from pathlib import Path

import pytest

from phi3_assets.core.step import StepContext
from phi3_assets.steps import EVAL_REPORT
from phi3_assets_tests.made_once import made_once

END, USER, ASSISTANT = "<|end|>", "<|user|>", "<|assistant|>"
ROWS = [
    ("What is the capital of France?", "Paris."),
    ("Name a colour of the sky", "Blue, or grey when it rains."),
    ("2 + 2", "4"),
    ("Why does ice float on water, in one long sentence please?", "It is less dense."),
    ("<script>alert(1)</script>", "Never & always <b>escape</b>."),
    ("Who wrote Faust?", "Johann Wolfgang von Goethe wrote it."),
    ("What does HTTP status code 404 mean?", "Not found."),
]


def make_tokenizer(directory: Path, vocab: int = 400):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=["<unk>", END, USER, ASSISTANT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text for row in ROWS for text in row] * 4, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END, unk_token="<unk>")
    fast.chat_template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    fast.save_pretrained(directory)
    return fast


def make_base(directory: Path, vocab: int = 400, **config):
    import torch
    from transformers import GenerationConfig, Phi3Config, Phi3ForCausalLM

    tokenizer = make_tokenizer(directory, vocab)
    torch.manual_seed(0)
    model = Phi3ForCausalLM(
        Phi3Config(
            **{
                "vocab_size": len(tokenizer),
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "max_position_embeddings": 256,
                "original_max_position_embeddings": 256,
                "initializer_range": 0.3,  # sharp enough that the greedy choice is no coin toss
                "eos_token_id": tokenizer.eos_token_id,
                "bos_token_id": None,
                "pad_token_id": 0,  # its embedding stays zero, and a zero end token could never be learnt
                "tie_word_embeddings": True,
                **config,
            }
        )
    )
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.eos_token_id)
    model.save_pretrained(directory)
    return directory


def write_corpus(directory: Path, base: Path, rows=ROWS):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    directory.mkdir(exist_ok=True)
    with (directory / "test.jsonl").open("w", encoding="utf-8") as lines:
        for number, (question, answer) in enumerate(rows):
            messages = [{"role": "user", "content": question}]
            prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            row = {
                "id": f"row-{number}",
                "messages": [*messages, {"role": "assistant", "content": answer}],
                "question": question,
                "answer": answer,
                "prompt_ids": tokenizer(prompt, add_special_tokens=False).input_ids,
                "answer_ids": tokenizer(answer + END, add_special_tokens=False).input_ids,
            }
            lines.write(json.dumps(row) + "\n")
    return directory


def export(merged: Path, output: Path, precision: str) -> Path:
    from onnxruntime_genai.models.builder import create_model

    # the builder prints what it does
    with contextlib.redirect_stdout(open(os.devnull, "w")):
        create_model(None, str(merged), str(output), precision, "cpu", str(output) + "-cache")
    return output


CHAIN = (*EVAL_REPORT.inputs, "onnx_fp32_model")


@pytest.fixture(scope="session")
def chain(tmp_path_factory) -> dict[str, Path]:
    """Directories of all inputs of the evaluate step, plus `onnx_fp32_model`."""
    root = made_once(tmp_path_factory, "chain", make_chain)
    return {name: root / name for name in CHAIN}


def make_chain(root: Path) -> None:
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    base = make_base(root / "base_model")
    (base / "LICENSE").write_text("Apache License, Version 2.0\n")
    torch.manual_seed(1)
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(r=4, lora_alpha=8, target_modules=["qkv_proj", "o_proj"], init_lora_weights=False),
    )
    adapted.save_pretrained(root / "lora_adapter")
    (root / "lora_adapter" / "history.json").write_text(
        json.dumps(
            [{"step": s, "epoch": s / 4, "loss": 4 / s, "learning_rate": 1e-3, "grad_norm": 1} for s in (1, 2, 3)]
        )
    )
    merged = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base), root / "lora_adapter"
    ).merge_and_unload()
    merged.save_pretrained(root / "merged_model")
    make_tokenizer(root / "merged_model")
    write_corpus(root / "formatted_corpus", base)
    export(root / "merged_model", root / "onnx_int4_model", "int4")
    export(root / "merged_model", root / "onnx_fp32_model", "fp32")


@pytest.fixture(scope="session")
def context_for(chain, tmp_path_factory):
    """Makes contexts of the evaluate step on the chain, with single inputs replaced by name."""

    def make(
        log=lambda line: None, progress=lambda **numbers: None, test_items: int = 0, **replaced: Path
    ) -> StepContext:
        root = tmp_path_factory.mktemp("evaluation")
        (root / "output").mkdir()
        params = {"max_new_tokens": 8, "test_items": test_items}
        inputs = {name: replaced.get(name, chain[name]) for name in EVAL_REPORT.inputs}
        return StepContext(params, inputs, root / "output", root / "work", root / "cache", log, progress)

    return make
