"""From rendered conversations to token ids and labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Encoding, Tokenizer

from phi3_assets.data.chat_template import Rendered, read_json, special_tokens
from phi3_assets.errors import UserError

IGNORED = -100
"""Label of a token that is not learnt (PyTorch's cross entropy skips it)."""


@dataclass(frozen=True)
class ModelTokens:
    """A base model's tokenizer and the tokens that have a meaning of their own.

    Attributes:
        tokenizer: Encodes without adding tokens: the chat template writes them all.
        end_ids: Tokens that end an answer, from generation_config.json, config.json and the tokenizer.
        begin_id: The begin token, if the tokenizer has one.
    """

    tokenizer: Tokenizer
    end_ids: tuple[int, ...]
    begin_id: int | None

    @property
    def end_texts(self) -> tuple[str, ...]:
        """The end tokens as they stand in text."""
        return tuple(text for text in map(self.tokenizer.id_to_token, self.end_ids) if text)


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
    ids: list[int] = []
    for config in (read_json(model / "generation_config.json"), read_json(model / "config.json")):
        found = config.get("eos_token_id")
        ids += found if isinstance(found, list) else [found] if isinstance(found, int) else []
    eos = tokenizer.token_to_id(named.get("eos_token", ""))
    ids += [eos] if eos is not None else []
    if not ids:
        raise UserError(
            "Nothing in the base model says which token ends an answer: set eos_token_id in its generation_config.json."
        )
    return ModelTokens(tokenizer, tuple(dict.fromkeys(ids)), tokenizer.token_to_id(named.get("bos_token", "")))


@dataclass(frozen=True)
class Tokenised:
    """A conversation as tokens.

    Attributes:
        ids: Token ids of the whole conversation.
        answers: First and one past the last token of each answer, its end token included.
        ended: True if every answer is followed by an end token.
    """

    ids: list[int]
    answers: list[tuple[int, int]]
    ended: bool


def tokenise(model: ModelTokens, conversations: Sequence[Rendered]) -> list[Tokenised]:
    """Encode conversations, all at once: the tokenizer uses every core."""
    encodings = model.tokenizer.encode_batch([each.text for each in conversations], add_special_tokens=False)
    ends = model.end_texts
    return [_locate(each, encoding, ends) for each, encoding in zip(conversations, encodings, strict=True)]


def _locate(conversation: Rendered, encoding: Encoding, end_texts: tuple[str, ...]) -> Tokenised:
    ids = encoding.ids
    text = conversation.text
    answers: list[tuple[int, int]] = []
    ended = True
    for start, end in conversation.answers:
        mark = next((mark for mark in end_texts if text.startswith(mark, end)), "")
        ended = ended and mark != ""
        answers.append((_token_at(encoding, start, text, ids), _token_at(encoding, end + len(mark), text, ids)))
    return Tokenised(ids, answers, ended)


def _token_at(encoding: Encoding, position: int, text: str, ids: list[int]) -> int:
    """Index of the token that holds the character at `position`; characters that a tokenizer drops are passed over."""
    while position < len(text):
        token: int | None = encoding.char_to_token(position)
        if token is not None:
            return token
        position += 1
    return len(ids)


def labels_of(row: Tokenised) -> list[int]:
    """The ids of the answers, and IGNORED elsewhere."""
    labels = [IGNORED] * len(row.ids)
    for start, end in row.answers:
        labels[start:end] = row.ids[start:end]
    return labels
