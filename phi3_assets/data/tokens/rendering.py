"""From messages to the text that is trained on, and where in it the answers are.

The text comes from the model's chat template or from the recipe's `text_template`. An answer starts where the prompt
ends that will be given to the model to have it answer, so training and use cannot differ by a character.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from phi3_assets.core.errors import UserError, nearest
from phi3_assets.data import NOT_LEARNT, Message, spoken_role
from phi3_assets.data.tokens.chat_template import ChatTemplate


class TemplateMismatch(Exception):
    """A conversation whose prompt, as it will be asked, is not how its full text begins."""


class Rendered(NamedTuple):
    """A conversation as text.

    Attributes:
        text: The whole conversation.
        answers: Start and end of each assistant turn in `text`, in characters, the answer's end token not included.
    """

    text: str
    answers: list[tuple[int, int]]


class Skeleton(NamedTuple):
    """What is put around the contents of conversations with the same roles.

    The text is between[0] + content[0] + between[1] + ... + between[-1]. `headers[i]` is how many characters before
    content i an answer starts: those that the prompt does not hold yet (0 for most templates).
    """

    between: tuple[str, ...]
    headers: dict[int, int]

    def fill(self, messages: list[Message]) -> Rendered:
        """Lay out a conversation."""
        parts: list[str] = []
        answers: list[tuple[int, int]] = []
        position = 0
        for i, (_, content) in enumerate(messages):
            parts += (self.between[i], content)
            start = position + len(self.between[i])
            position = start + len(content)
            if i in self.headers:
                answers.append((start - self.headers[i], position))
        parts.append(self.between[-1])
        return Rendered("".join(parts), answers)


class Renderer:
    """Lays out conversations, the fast way where it is proved right.

    Args:
        text: The template: (messages, prompt) to text.
        copies_contents: It is proved that the template writes contents without looking at them.
        end_text: Text of the token that ends an answer, put behind passages of plain text.
    """

    def __init__(self, text: Callable[[list[Message], bool], str], copies_contents: bool, end_text: str) -> None:
        self._text = text
        self._copies_contents = copies_contents
        self._end_text = end_text
        self._skeletons: dict[tuple[str, ...], Skeleton | None] = {}

    def skeleton(self, roles: tuple[str, ...]) -> Skeleton | None:
        """What stands around the contents; None if the template does not just write each of them once, in order."""
        if roles not in self._skeletons:
            # Where some answers are not learnt, the tokenizer must not look for one behind every header.
            self._skeletons[roles] = None if NOT_LEARNT in roles else self._find_skeleton(roles)
        return self._skeletons[roles]

    def render(self, messages: list[Message]) -> Rendered:
        """The conversation as text, and where its answers are. Linear in the turns for all but odd templates.

        Raises:
            TemplateMismatch: The template has no prompt that is the beginning of this text.
            UserError: The template refuses the conversation.
        """
        if any(role == NOT_LEARNT for role, _ in messages):
            return self._without_some(messages)
        skeleton = self.skeleton(tuple([role for role, _ in messages]))
        if skeleton is not None:
            laid_out = skeleton.fill(messages)
            if self._copies_contents or messages[0][0] == "text" or laid_out.text == self._text(messages, False):
                return laid_out
        text = self._text(messages, False)
        return Rendered(text, self._answers_by_prompts(messages, text))

    def _without_some(self, messages: list[Message]) -> Rendered:
        """A conversation of which some answers are not learnt: they stand in the text, and are no answers."""
        whole = self.render([(spoken_role(role), content) for role, content in messages])
        learnt = [role == "assistant" for role, _ in messages if spoken_role(role) == "assistant"]
        return Rendered(whole.text, [span for span, kept in zip(whole.answers, learnt, strict=True) if kept])

    def _find_skeleton(self, roles: tuple[str, ...]) -> Skeleton | None:
        if roles == ("text",):
            return Skeleton(("", self._end_text), {0: 0})
        marks = [f"\ue000{i}\ue001" for i in range(len(roles))]
        messages = list(zip(roles, marks, strict=True))
        text = self._text(messages, False)
        between: list[str] = []
        position = 0
        for mark in marks:
            start = text.find(mark, position)
            if start < 0 or text.count(mark) > 1:
                return None
            between.append(text[position:start])
            position = start + len(mark)
        between.append(text[position:])
        try:
            starts = iter([start for start, _ in self._answers_by_prompts(messages, text)])
        except TemplateMismatch:
            return None
        headers = {i: text.index(marks[i]) - next(starts) for i, role in enumerate(roles) if role == "assistant"}
        return Skeleton(tuple(between), headers)

    def _answers_by_prompts(self, messages: list[Message], text: str) -> list[tuple[int, int]]:
        answers: list[tuple[int, int]] = []
        for i, (role, content) in enumerate(messages):
            if role == "assistant":
                prompt = self._text(messages[:i], True)
                start = text.find(content, len(prompt))
                if not text.startswith(prompt) or start < 0:
                    raise TemplateMismatch
                answers.append((len(prompt), start + len(content)))
        return answers


def chat_renderer(template: ChatTemplate, end_text: str) -> Renderer:
    """A renderer of the model's own template."""
    return Renderer(template.text, template.copies_contents, end_text)


def template_renderer(template: str, question_column: str, answer_column: str, end_text: str) -> Renderer:
    r"""A renderer of a template such as '<|user|>\n{Question}<|end|>\n<|assistant|>\n{Best Answer}<|end|>'.

    Raises:
        UserError: A placeholder is not a column of question and answer, or one of the two does not stand there once.
    """
    wanted = [question_column, answer_column]
    pieces = re.split("({[^{}]*})", template)
    names = [piece[1:-1] for piece in pieces[1::2]]
    for name in names:
        if name not in wanted:
            raise UserError(
                f"text_template has the placeholder {{{name}}}, which is neither question_column ({question_column!r}) "
                f"nor answer_column ({answer_column!r}).{nearest(name, wanted)}"
            )
    if names != wanted:
        raise UserError(
            f"text_template must hold {{{question_column}}} and then {{{answer_column}}}, each once; it holds "
            f"{', '.join(f'{{{name}}}' for name in names) or 'no placeholder'}."
        )
    before, between, after = pieces[0::2]

    def text(messages: list[Message], prompt: bool) -> str:
        if [role for role, _ in messages] not in (["user", "assistant"], ["user"]):
            raise TemplateMismatch
        start = before + messages[0][1] + between
        return start if prompt else start + messages[1][1] + after

    return Renderer(text, True, end_text)
