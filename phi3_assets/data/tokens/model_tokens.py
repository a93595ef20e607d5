"""From rendered conversations to token ids and to what of them is learnt, for many rows at once."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from phi3_assets.core.errors import UserError
from phi3_assets.data.tokens.by_words import Ids, WordEncoder, flatten, is_cut_at_words
from phi3_assets.data.tokens.chat_template import read_json, special_tokens
from phi3_assets.data.tokens.rendering import Rendered, Skeleton
from phi3_assets.models.end_tokens import end_token_ids

IGNORED = -100
"""Label of a token that is not learnt (PyTorch's cross entropy skips it)."""

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class ModelTokens:
    """A base model's tokenizer and the tokens that have a meaning of their own.

    Attributes:
        tokenizer: Encodes without adding tokens: the template writes them all.
        end_ids: Tokens that end an answer, from generation_config.json, config.json and the tokenizer.
        begin_id: The begin token, if the tokenizer has one.
    """

    tokenizer: Tokenizer
    end_ids: tuple[int, ...]
    begin_id: int | None

    @cached_property
    def end_texts(self) -> dict[str, int]:
        """The end tokens as they stand in text, and their ids."""
        return {text: i for i in self.end_ids if (text := self.tokenizer.id_to_token(i))}

    @cached_property
    def special_texts(self) -> list[str]:
        """Every text that the tokenizer reads as a control token, wherever it stands."""
        added = self.tokenizer.get_added_tokens_decoder().values()
        return sorted(token.content for token in added if token.special)

    @cached_property
    def _words(self) -> WordEncoder | None:
        return WordEncoder(self.tokenizer) if is_cut_at_words(self.tokenizer) else None

    def encode(self, texts: list[str]) -> Ids:
        """Token ids of texts, which hold all control tokens that they are to have."""
        if self._words:
            return self._words.encode(texts)
        return flatten([each.ids for each in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)])


def load_model_tokens(model: Path) -> ModelTokens:
    """Read the tokenizer of a Hugging Face model directory.

    Raises:
        UserError: No tokenizer.json, or nothing says which token ends an answer.
    """
    file = model / "tokenizer.json"
    if not file.is_file():
        raise UserError(
            "The base model has no tokenizer.json. Save it once with "
            "AutoTokenizer.from_pretrained(...).save_pretrained(...) and use that directory."
        )
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    named = special_tokens(read_json(model / "tokenizer_config.json"))
    ids = end_token_ids(model)
    if not ids:
        raise UserError(
            "Nothing in the base model says which token ends an answer: set eos_token_id in its generation_config.json."
        )
    return ModelTokens(tokenizer, tuple(ids), tokenizer.token_to_id(named.get("bos_token", "")))


@dataclass(frozen=True)
class TokenRows:
    """Tokenised conversations, end to end.

    Attributes:
        ids: Token ids of all rows, int32.
        offsets: Where each row starts in `ids`, and the end of the last.
        starts: Position in `ids` of the first token of each answer of all rows.
        ends: One past the last token of each answer, its end token included.
        turns: Number of answers of each row.
        ended: For each answer, whether an end token follows it.
    """

    ids: NDArray[np.int32]
    offsets: Positions
    starts: Positions
    ends: Positions
    turns: Positions
    ended: NDArray[np.bool_]

    @property
    def lengths(self) -> Positions:
        """Tokens of each row."""
        return np.diff(self.offsets)

    @property
    def first_answers(self) -> Positions:
        """For each row, which answer is its first."""
        return np.cumsum(self.turns) - self.turns

    def learnt(self) -> NDArray[np.bool_]:
        """Which tokens belong to an answer."""
        change = np.zeros(len(self.ids) + 1, np.int8)
        change[self.starts] += 1  # answers do not overlap, so no position comes twice in either list
        change[self.ends] -= 1
        return np.cumsum(change[:-1]).astype(bool)

    def prompt_hashes(self) -> NDArray[np.uint64]:
        """Hashes of the tokens before each row's first answer and before its last, shape (rows, 2)."""
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(self._token_hashes())])
        first = self.first_answers
        ends = self.starts[np.stack([first, first + self.turns - 1], axis=1)]
        hashes: NDArray[np.uint64] = sums[ends] - sums[self.offsets[:-1], None]
        return hashes

    def _token_hashes(self) -> NDArray[np.uint64]:
        place = np.arange(len(self.ids)) - np.repeat(self.offsets[:-1], self.lengths)
        mixed = (self.ids.astype(np.uint64) << np.uint64(32) | place.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        return (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)


def tokenise(model: ModelTokens, rows: list[Rendered], skeletons: list[Skeleton | None]) -> TokenRows:
    """Encode conversations; the tokenizer uses every core.

    Args:
        model: The tokenizer.
        rows: The conversations.
        skeletons: What each was laid out with, if it was.
    """
    distinct = list({id(each): each for each in skeletons}.values())
    anchors = {_anchor(model, each) if each else None for each in distinct}
    anchor = anchors.pop() if len(anchors) == 1 else None
    if anchor is not None:
        found = _by_anchor(model, rows, anchor, _head(model, [each.between[0] for each in distinct if each]))
        if found is not None:
            return found
    return _by_offsets(model, rows)


Anchor = tuple[tuple[int, ...], int]
"""Tokens that stand before every answer and nowhere else, the first a control token; and the token behind it."""


def _anchor(model: ModelTokens, skeleton: Skeleton) -> Anchor | None:
    found: set[Anchor] = set()
    for i, header in skeleton.headers.items():
        before, after = skeleton.between[i], skeleton.between[i + 1]
        start = max((before.rfind(text) for text in model.special_texts), default=-1)
        end = next((number for text, number in model.end_texts.items() if after.startswith(text)), None)
        if header or start < 0 or end is None or model.tokenizer.id_to_token(end) not in model.special_texts:
            return None
        found.add((tuple(model.tokenizer.encode(before[start:], add_special_tokens=False).ids), end))
    return found.pop() if len(found) == 1 else None


def _head(model: ModelTokens, beginnings: list[str]) -> str:
    """What all conversations begin with, up to the last control token that the template writes before any content.

    Such as the default system message of many templates: often a third of a short row's tokens. The tokenizer takes
    control tokens out before it looks at anything else, so what stands before one gives the same tokens in every row.
    """
    if len(set(beginnings)) != 1:
        return ""
    return beginnings[0][: max((beginnings[0].rfind(text) for text in model.special_texts), default=0)]


def _encode(model: ModelTokens, rows: list[Rendered], head: str) -> Ids:
    """Token ids of all rows and where each row starts; `head`, with which all rows begin, is encoded once."""
    first = model.encode([row.text for row in rows[:1]])[0]
    rest, offsets = model.encode([row.text[len(head) :] for row in rows])
    size = len(first) - int(offsets[1]) if len(rows) else 0
    if size <= 0:
        return rest, offsets
    if not np.array_equal(first[size:], rest[: offsets[1]]):  # no tokenizer that is known
        return model.encode([row.text for row in rows])
    ids = np.empty(len(rest) + size * len(rows), np.int32)
    places = (offsets[:-1] + size * np.arange(len(rows)))[:, None] + np.arange(size)
    is_rest = np.ones(len(ids), bool)
    is_rest[places] = False
    ids[places] = first[:size]
    ids[is_rest] = rest
    return ids, offsets + size * np.arange(len(offsets))


def _by_anchor(model: ModelTokens, rows: list[Rendered], anchor: Anchor, head: str) -> TokenRows | None:
    """Find the answers among the tokens: a third faster than with the tokenizer's offsets.

    Contents hold no control token (`pieces` sees to that), so the tokens of the header are the header. If they are not
    found once per answer, a header has melted into what follows it: None.
    """
    header, end = anchor
    ids, offsets = _encode(model, rows, head)
    places = np.flatnonzero(ids[: len(ids) - len(header) + 1] == header[0])
    for i, token in enumerate(header[1:], 1):
        places = places[ids[places + i] == token]
    turns = np.array([len(row.answers) for row in rows])
    found = np.bincount(np.searchsorted(offsets, places, side="right") - 1, minlength=len(rows))
    if not np.array_equal(found, turns):
        return None
    starts = places + len(header)
    stops = np.flatnonzero(ids == end)
    ends = stops[np.searchsorted(stops, starts)] + 1
    return TokenRows(ids, offsets, starts, ends, turns, np.ones(len(starts), bool))


def _by_offsets(model: ModelTokens, rows: list[Rendered]) -> TokenRows:
    """Find the answers by the characters that each token stands for."""
    encodings = model.tokenizer.encode_batch([row.text for row in rows], add_special_tokens=False)
    ids, offsets = flatten([encoding.ids for encoding in encodings])
    starts: list[int] = []
    ends: list[int] = []
    ended: list[bool] = []
    for row, encoding, offset in zip(rows, encodings, offsets.tolist(), strict=False):
        for start, end in row.answers:
            mark = next((text for text in model.end_texts if row.text.startswith(text, end)), "")
            starts.append(offset + _token_at(encoding, start, row.text))
            ends.append(offset + _token_at(encoding, end + len(mark), row.text))
            ended.append(mark != "")
    turns = np.array([len(row.answers) for row in rows], np.int64)
    return TokenRows(
        ids, offsets, np.array(starts, np.int64), np.array(ends, np.int64), turns, np.array(ended, np.bool_)
    )


def _token_at(encoding: Encoding, position: int, text: str) -> int:
    """Index of the token that holds the character at `position`; characters that a tokenizer drops are passed over."""
    while position < len(text):
        token: int | None = encoding.char_to_token(position)
        if token is not None:
            return token
        position += 1
    return len(encoding)
