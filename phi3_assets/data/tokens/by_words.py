"""Token ids of texts of which each distinct word is encoded once: most words of a batch stand in it again and again.

A tokenizer takes a text apart before it looks for tokens. Where it is proved to do so whatever stands around, both
sides have the tokens that each has alone: there texts are cut, and what is equal is encoded once. Such places are
where a control token begins or ends, before a space behind a character that is no blank, and before a character of
ASCII that is no letter behind a letter.
"""

import json
from collections.abc import Sequence
from itertools import chain, pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer

Ids = tuple[NDArray[np.int32], NDArray[np.int64]]
"""Token ids of texts end to end, and where each text starts among them, with the end of the last."""

_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How the families of Llama 3, Qwen and Phi-4 take texts apart, but for how many digits stay together. As with GPT-2's,
which is `ByteLevel`'s own, no match has a space behind a character that is no blank, or anything but letters behind a
letter, nor looks past them."""
_MOST_KNOWN, _LONGEST_KNOWN = 200_000, 64
"""Words whose ids are kept from batch to batch, and characters of such a word: some languages write no spaces."""
_SPACE = 0x20
_BYTES = np.arange(256)
_VISIBLE = (_BYTES > _SPACE) & (_BYTES < 0x7F)
# UTF-8 of Unicode's other blanks: c2 85, c2 a0, e1 9a 80, e2 80 .., e2 81 9f, e3 80 80.
_BEFORE_BLANK_END = np.isin(_BYTES, (0xC2, 0x9A, 0x80, 0x81))


def flatten(lists: Sequence[list[int]]) -> Ids:
    """Lists of ids end to end."""
    offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in lists], dtype=np.int64)])
    return np.fromiter(chain.from_iterable(lists), np.int32, int(offsets[-1])), offsets


def is_cut_at_words(tokenizer: Tokenizer) -> bool:
    """Whether it is proved that a tokenizer takes texts apart where `WordEncoder` cuts them."""
    normalizer, splitter = tokenizer.normalizer, tokenizer.pre_tokenizer
    if splitter is None or getattr(tokenizer.model, "dropout", None):
        return False
    if normalizer is not None and json.loads(normalizer.__getstate__()) != {"type": "NFC"}:
        return False
    found = json.loads(splitter.__getstate__())
    *first, last = found.get("pretokenizers", [found])
    words = [step for step in first if step["type"] != "Digits"]
    return (
        all(map(_is_known, words))
        and last["type"] == "ByteLevel"
        and not last["add_prefix_space"]
        and (last["use_regex"] or bool(words))
        and _are_apart(list(tokenizer.get_added_tokens_decoder().values()), normalizer is not None)
    )


def _is_known(step: dict[str, object]) -> bool:
    pattern = step.get("pattern")
    regex = pattern.get("Regex", "") if isinstance(pattern, dict) else ""
    behaviour = step["type"], step.get("behavior"), step.get("invert")
    return behaviour == ("Split", "Isolated", False) and regex.replace("{1,3}", "") == _PATTERN


def _are_apart(added: list[AddedToken], is_normalised: bool) -> bool:
    """Whether wherever the text of an added token stands it is that token, and takes nothing around it.

    None has another's first character further on, so no two of them overlap, and none is the beginning of another.
    """
    texts = sorted(token.content for token in added)
    beginnings = {text[:1] for text in texts}
    return (
        not any(token.lstrip or token.rstrip or token.single_word for token in added)
        and not (is_normalised and any(token.normalized for token in added))
        and not any(beginnings & set(text[1:]) or " " in text or not text for text in texts)
        and not any(longer.startswith(shorter) for shorter, longer in pairwise(texts))
    )


class WordEncoder:
    """Encodes texts with a tokenizer that `is_cut_at_words`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._added = [token.content.encode() for token in tokenizer.get_added_tokens_decoder().values()]
        self._known: dict[str, list[int]] = {}

    def encode(self, texts: list[str]) -> Ids:
        """What the tokenizer's `encode_batch_fast` gives, without special tokens that it would put around texts."""
        column = pa.array(texts, pa.string())
        _, offsets, content = column.buffers()
        rows = np.frombuffer(offsets, np.int32)[: len(texts) + 1]
        if not texts or not rows[-1]:
            return np.zeros(0, np.int32), np.zeros(len(texts) + 1, np.int64)
        data = np.frombuffer(content, np.uint8)[: rows[-1]]
        starts = np.flatnonzero(self._cuts(data, rows))
        ends = pa.py_buffer(np.append(starts, len(data)).astype(np.int32))
        pieces = pa.Array.from_buffers(pa.string(), len(starts), [None, ends, content]).dictionary_encode()
        ids, bounds = flatten(self._encode(pieces.dictionary.to_pylist()))
        found = pa.ListArray.from_arrays(pa.array(bounds, pa.int32()), pa.array(ids)).take(pieces.indices)
        return found.flatten().to_numpy(), found.offsets.to_numpy().astype(np.int64)[np.searchsorted(starts, rows)]

    def _encode(self, words: list[str]) -> list[list[int]]:
        known = self._known
        new = [word for word in words if word not in known]
        encodings = self._tokenizer.encode_batch_fast(new, add_special_tokens=False)
        made = dict(zip(new, [encoding.ids for encoding in encodings], strict=True))
        result = [made[word] if word in made else known[word] for word in words]
        if len(known) + len(made) > _MOST_KNOWN:
            self._known = {}
        self._known.update((word, ids) for word, ids in made.items() if len(word) <= _LONGEST_KNOWN)
        return result

    def _cuts(self, data: NDArray[np.uint8], rows: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Of each byte of texts end to end, whether a piece begins there; texts begin, and the last ends, at `rows`."""
        cuts = np.zeros(len(data) + 1, bool)
        letters = (data | np.uint8(0x20)) - np.uint8(ord("a")) < 26
        cuts[1:-1] = letters[:-1] & ~letters[1:] & (data[1:] < 0x80)
        spaces = np.flatnonzero((data[1:] == _SPACE) & ~letters[:-1]) + 1
        before = data[spaces - 1]
        cuts[spaces] = _VISIBLE[before] | ((before >= 0x80) & ~_BEFORE_BLANK_END[data[spaces - 2]])
        first = {byte: np.flatnonzero(data == byte) for byte in {text[0] for text in self._added}}
        for text in self._added:
            places = first[text[0]]
            for i, byte in enumerate(text[1:], 1):
                places = places[places < len(data) - i]
                places = places[data[places + i] == byte]
            last = places + len(text) - 1
            places = places[np.searchsorted(rows, places, side="right") == np.searchsorted(rows, last, side="right")]
            for i in range(1, len(text)):
                cuts[places + i] = False
            cuts[places] = cuts[places + len(text)] = True
        cuts[rows] = True
        return cuts[:-1]
