"""A random Phi-3 of about 130 k parameters with a real tokenizer, built on the spot: for tests, in seconds.

It goes through every pass that a real Phi-3 goes through. Its sizes are the smallest that ONNX Runtime's kernels
take: the head size must be a multiple of 16.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from phi3_assets.core.errors import UserError, nearest
from phi3_assets.models.random_shapes import SHAPES, shape_of, write_model

# name -> whether input and output embeddings share their weights: as in the default model, or as in Phi-3-mini.
VARIANTS = {"phi3-tiny": True, "phi3-tiny-untied": False}

VOCABULARY = 512
_TINY = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "original_max_position_embeddings": 512,
    # Wider than the usual 0.02: a model this small would otherwise say the same about every token.
    "initializer_range": 0.1,
    "dtype": "float32",
}
SPECIAL_TOKENS = ["<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"]

# Phi-3-mini's own template.
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + "
    "'<|end|>\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
    "{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)

# What the tokenizer's merges are learnt from, so that English takes about two characters a token.
_TEXT = """
The server understood the request but will not carry it out. What does the status code mean? It means that the
resource was not found at this address, or that the client must sign in first. Which error is returned when a file or
directory does not exist, when permission is denied, when there is no space left on the device? The operation would
block; try again later. How is a connection refused, reset or closed by the other side? A question has an answer, and
an answer has a reason. This is the name of the function that returns the number of bytes written. The response
should contain a header field that says how long to wait. Invalid argument, broken pipe, too many open files.
"""


def build_tokenizer(vocabulary: int = VOCABULARY, longest: int = 512) -> Any:
    """A byte-level BPE tokenizer with Phi-3's special tokens and chat template.

    Any text encodes and decodes to itself.

    Args:
        vocabulary: Tokens; no text is encoded with those after the first `VOCABULARY`, but a model may say them.
        longest: The model's longest sequence, in tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=SPECIAL_TOKENS,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT.strip().splitlines(), trainer)
    if vocabulary > VOCABULARY:
        content = json.loads(tokenizer.to_str())
        content["model"]["vocab"] |= {f"unused{number}": number for number in range(VOCABULARY, vocabulary)}
        tokenizer = Tokenizer.from_str(json.dumps(content))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=SPECIAL_TOKENS[0],
        eos_token=SPECIAL_TOKENS[0],
        pad_token=SPECIAL_TOKENS[0],
        additional_special_tokens=SPECIAL_TOKENS[1:],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=longest,
    )


def write_random_model(
    variant: str, seed: int, output: Path, *, begin: Callable[[int], None] = lambda size: None
) -> None:
    """Write a model directory with random weights; the same seed gives the same bytes.

    Args:
        variant: A key of `VARIANTS`, or a shape of `random_shapes`.
        seed: Of the weights.
        output: An empty directory.
        begin: Called once, with the bytes of the weights that will be written.

    Raises:
        UserError: No such variant.
    """
    import torch
    from transformers import GenerationConfig, Phi3Config, Phi3ForCausalLM

    if variant not in VARIANTS and shape_of(variant) is None:
        known = [*VARIANTS, *SHAPES]
        raise UserError(f"base_model: no random model {variant!r}.{nearest(variant, known)} Known: {', '.join(known)}.")
    ids = {token: number for number, token in enumerate(SPECIAL_TOKENS)}
    shape = shape_of(variant) or {**_TINY, "tie_word_embeddings": VARIANTS[variant]}
    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), ids["<|endoftext|>"])
    config = Phi3Config(**shape, **ends)
    generation = GenerationConfig.from_model_config(config)
    # Three stop tokens, as Phi-3-mini has; runtimes that keep only the first never stop after an answer.
    generation.eos_token_id = [ids["<|endoftext|>"], ids["<|assistant|>"], ids["<|end|>"]]
    generation.pad_token_id = ids["<|endoftext|>"]
    if variant in VARIANTS:
        torch.manual_seed(seed)
        model = Phi3ForCausalLM(config).eval()
        model.generation_config = generation
        begin(sum(weight.numel() * weight.itemsize for weight in model.parameters()))
        model.save_pretrained(output)
    else:
        write_model(config, seed, output, begin)
        generation.save_pretrained(output)
    build_tokenizer(config.vocab_size, config.max_position_embeddings).save_pretrained(output)
