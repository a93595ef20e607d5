"""What fine-tuning made a model forget: ordinary prose and plain facts, shipped with this package, the same for all.

The suite is `general.yaml`. Each variant says how surprising it finds the texts, and which continuation of a question
it finds likelier. No chat template: what is asked is what the model knows of language, not how it was taught to answer.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

SUITE = Path(__file__).with_name("general.yaml")


@dataclass(frozen=True)
class Passage:
    """Tokens, of which those from `start` on are scored; start is at least 1, for something must predict them."""

    ids: tuple[int, ...]
    start: int


@dataclass(frozen=True)
class GeneralSuite:
    """The suite in a model's tokens.

    Attributes:
        texts: Scored from their second token on.
        questions: The continuations of each question, the right one first; scored from where they begin.
    """

    texts: tuple[Passage, ...]
    questions: tuple[tuple[Passage, ...], ...]

    @property
    def passages(self) -> list[Passage]:
        """All that is to be scored, in the order that `summarise` expects."""
        return [*self.texts, *(one for question in self.questions for one in question)]

    @property
    def tokens(self) -> int:
        """Scored tokens of the texts."""
        return sum(_scored(passage) for passage in self.texts)

    def summarise(self, losses: Sequence[float]) -> dict[str, float]:
        """A variant's numbers.

        Args:
            losses: Nats of the scored tokens of each of `passages`, summed.

        Returns:
            general_nll, nats per token of the texts; general_right, share of questions whose right continuation is
            likelier, per token, than all wrong ones.
        """
        texts, rest = losses[: len(self.texts)], iter(losses[len(self.texts) :])
        return {
            "general_nll": round(math.fsum(texts) / self.tokens, 6),
            "general_right": round(
                sum(_chosen(question, rest) for question in self.questions) / len(self.questions), 6
            ),
        }


def _chosen(question: Sequence[Passage], losses: Iterator[float]) -> bool:
    right, *wrong = (next(losses) / _scored(passage) for passage in question)
    return right < min(wrong)


def _scored(passage: Passage) -> int:
    return len(passage.ids) - passage.start


def load_general(tokenizer: Any, context_tokens: int) -> GeneralSuite:
    """Read the suite in the tokens of a model.

    Args:
        tokenizer: The base model's.
        context_tokens: Longest sequence that the model takes; longer texts are cut.
    """
    suite = yaml.safe_load(SUITE.read_text(encoding="utf-8"))

    def encode(text: str) -> tuple[int, ...]:
        return tuple(tokenizer(text, add_special_tokens=False).input_ids[:context_tokens])

    def continuation(text: str, end: str) -> Passage:
        # Some tokenizers treat a leading space apart, so the whole is encoded, not its two parts.
        before, whole = encode(text), encode(f"{text} {end}")
        pairs = enumerate(zip(before, whole, strict=False))
        start = next((place for place, (alone, together) in pairs if alone != together), len(before))
        return Passage(whole, max(1, start))

    return GeneralSuite(
        texts=tuple(Passage(encode(text), 1) for text in suite["texts"]),
        questions=tuple(
            tuple(continuation(one["text"], end) for end in (one["right"], *one["wrong"])) for one in suite["questions"]
        ),
    )
