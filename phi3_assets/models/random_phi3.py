"""A random Phi-3 of about 130 k parameters with a real tokenizer, built on the spot: for tests, in seconds.

It goes through every pass that a real Phi-3 goes through. Its sizes are the smallest that ONNX Runtime's kernels
take: the head size must be a multiple of 16.
"""

from typing import Any

from phi3_assets.core.errors import UserError, nearest

# name -> whether input and output embeddings share their weights: as in the default model, or as in Phi-3-mini.
VARIANTS = {"phi3-tiny": True, "phi3-tiny-untied": False}

VOCABULARY = 512
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


def build_tokenizer() -> Any:
    """A byte-level BPE tokenizer of `VOCABULARY` tokens with Phi-3's special tokens and chat template.

    Any text encodes and decodes to itself.
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
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=SPECIAL_TOKENS[0],
        eos_token=SPECIAL_TOKENS[0],
        pad_token=SPECIAL_TOKENS[0],
        additional_special_tokens=SPECIAL_TOKENS[1:],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )


def build_model(variant: str, seed: int) -> Any:
    """A Phi3ForCausalLM with random weights; the same seed gives the same weights.

    Raises:
        UserError: No such variant.
    """
    import torch
    from transformers import Phi3Config, Phi3ForCausalLM

    if variant not in VARIANTS:
        known = list(VARIANTS)
        raise UserError(f"base_model: no random model {variant!r}.{nearest(variant, known)} Known: {', '.join(known)}.")
    ids = {token: number for number, token in enumerate(SPECIAL_TOKENS)}
    config = Phi3Config(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        original_max_position_embeddings=512,
        tie_word_embeddings=VARIANTS[variant],
        # Wider than the usual 0.02: a model this small would otherwise say the same about every token.
        initializer_range=0.1,
        bos_token_id=ids["<|endoftext|>"],
        eos_token_id=ids["<|endoftext|>"],
        pad_token_id=ids["<|endoftext|>"],
        dtype="float32",
    )
    torch.manual_seed(seed)
    model = Phi3ForCausalLM(config).eval()
    # Three stop tokens, as Phi-3-mini has; runtimes that keep only the first never stop after an answer.
    model.generation_config.eos_token_id = [ids["<|endoftext|>"], ids["<|assistant|>"], ids["<|end|>"]]
    model.generation_config.pad_token_id = ids["<|endoftext|>"]
    return model
