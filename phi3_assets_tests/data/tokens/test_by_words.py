"""Texts encoded word by word have the tokens that the tokenizer gives them whole, or the tokenizer is left alone."""

import random

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from phi3_assets.data.tokens import by_words
from phi3_assets.data.tokens.by_words import WordEncoder, flatten, is_cut_at_words

QWEN = Regex(by_words._PATTERN)
LLAMA3 = Regex(by_words._PATTERN.replace(r"\p{N}|", r"\p{N}{1,3}|"))
ISOLATED = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
SPLITTERS = {
    "GPT-2": GPT2,
    "SmolLM2": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), GPT2]),
    "digits together": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=False), GPT2]),
    "Llama 3": pre_tokenizers.Sequence([pre_tokenizers.Split(LLAMA3, "isolated"), ISOLATED]),
    "Qwen": pre_tokenizers.Sequence([pre_tokenizers.Split(QWEN, "isolated"), ISOLATED]),
}
SPECIAL = ["<|im_start|>", "<|im_end|>", "<s>"]
# Every kind of blank, mark, digit and letter that a pattern may treat apart, and bytes that are like those of blanks.
PARTS = [
    *" \t\n\r\x0b\x1c\x85\xa0\u1680\u2003\u2028\u202f\u205f\u3000\u200b\x00\x7f",
    *("  ", "   ", "\r\n", "\n\n", " \n ", "'s", " 's", "'LL", "é", "e\u0301", "\u0301", "\u0338", "<", "<|im_", "|>"),
    *"aBzßяшЂあ界गฮ5²½٣.,!?-–“_👍🏽",
    *("word", "Word", "слово", "世界", "12", "1234", "don't", "x=1;", *SPECIAL, "<tool>"),
]


def _texts(seed: int, count: int) -> list[str]:
    chooser = random.Random(seed)
    return [
        "".join(
            chooser.choice(PARTS) if chooser.random() < 0.6 else chooser.choice((" ", " word", " 12", "z"))
            for _ in range(chooser.randint(0, 25))
        )
        for _ in range(count)
    ]


def _tokenizer(splitter, normalizer=None, added: tuple[AddedToken, ...] = ()) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = splitter
    if normalizer:
        tokenizer.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=3000, min_frequency=2, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(_texts(0, 3000), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False), *added])
    return tokenizer


@pytest.mark.parametrize("normalizer", [None, normalizers.NFC()], ids=["as it is", "NFC"])
@pytest.mark.parametrize("name", SPLITTERS)
def test_words_give_the_tokens_of_the_whole(name: str, normalizer) -> None:
    tokenizer = _tokenizer(SPLITTERS[name], normalizer)
    assert is_cut_at_words(tokenizer)
    encoder = WordEncoder(tokenizer)
    for seed in range(1, 5):
        texts = _texts(seed, 3000)
        ids, offsets = encoder.encode(texts)
        whole = [each.ids for each in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        for row, expected in enumerate(whole):
            assert ids[offsets[row] : offsets[row + 1]].tolist() == expected, repr(texts[row])
        assert offsets.tolist() == flatten(whole)[1].tolist()


def test_nothing_gives_nothing() -> None:
    encoder = WordEncoder(_tokenizer(GPT2))
    for texts in ([], [""], ["", ""]):
        ids, offsets = encoder.encode(texts)
        assert (ids.tolist(), offsets.tolist()) == ([], [0] * (len(texts) + 1))


def test_words_are_forgotten_before_they_are_too_many_and_long_ones_at_once(monkeypatch) -> None:
    monkeypatch.setattr(by_words, "_MOST_KNOWN", 4)
    encoder = WordEncoder(_tokenizer(GPT2))
    first = encoder.encode(["a word z " + "界" * 100])[0].tolist()
    assert set(encoder._known) == {"a", " word", " z"}
    assert encoder.encode(["Word 12"])[0].tolist()
    assert set(encoder._known) == {"Word", " 12"}
    assert encoder.encode(["a word z " + "界" * 100])[0].tolist() == first


@pytest.mark.parametrize(
    ("splitter", "normalizer", "added"),
    [
        (pre_tokenizers.Metaspace(), None, ()),
        (pre_tokenizers.Split(Regex(r"\s+"), "isolated"), None, ()),
        (pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"\w+ \w+"), "isolated"), ISOLATED]), None, ()),
        (pre_tokenizers.Sequence([pre_tokenizers.Split(QWEN, "removed"), ISOLATED]), None, ()),
        (ISOLATED, None, ()),
        (pre_tokenizers.ByteLevel(add_prefix_space=True), None, ()),
        (GPT2, normalizers.Prepend("_"), ()),
        (GPT2, None, (AddedToken("<|user|>", rstrip=True),)),
        (GPT2, None, (AddedToken("<|user|>", single_word=True),)),
        (GPT2, None, (AddedToken("two words"),)),
        (GPT2, None, (AddedToken("<|im_"),)),
        (GPT2, None, (AddedToken("_end|>"), AddedToken("e"))),
        (GPT2, normalizers.NFC(), (AddedToken("<think>", normalized=True),)),
    ],
)
def test_a_tokenizer_of_another_kind_is_left_alone(splitter, normalizer, added) -> None:
    assert not is_cut_at_words(_tokenizer(splitter, normalizer, added))


def test_a_tokenizer_without_splitter_or_with_chance_is_left_alone() -> None:
    assert not is_cut_at_words(Tokenizer(models.BPE()))
    tokenizer = _tokenizer(GPT2)
    tokenizer.model.dropout = 0.1
    assert not is_cut_at_words(tokenizer)
