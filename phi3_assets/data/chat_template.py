"""A model's chat template, rendered as transformers renders it, without importing transformers.

`ChatTemplate.render` says where each answer starts and ends in the text, which is what a label mask is made of.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from phi3_assets.data.shapes import Message
from phi3_assets.errors import UserError

_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class TemplateMismatch(Exception):
    """A conversation whose prompt, as it will be asked, is not how its full text begins."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as text.

    Attributes:
        text: The whole conversation.
        answers: Start and end of each assistant turn in `text`, in characters, the answer's end token not included.
            An answer starts where the prompt ends that will be given to the model to have it answer.
    """

    text: str
    answers: list[tuple[int, int]]


@dataclass(frozen=True)
class _Skeleton:
    """What a template puts around the contents of conversations with the same roles.

    The text is between[0] + content[0] + between[1] + ... + between[-1]. `headers[i]` is how many characters before
    content i an answer starts: those that the prompt does not hold yet (0 for most templates).
    """

    between: tuple[str, ...]
    headers: dict[int, int]


class _GenerationTag(jinja2.ext.Extension):
    """Accepts `{% generation %}...{% endgeneration %}`, which transformers uses for masks; its body is plain text."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A compiled chat template and the special tokens that it may use."""

    def __init__(self, source: str, special_tokens: dict[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, "jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise
        # transformers also defines strftime_now. Left out: with it the same data would give another corpus each day.
        # Templates that use it test `strftime_now is defined` and have a fixed date otherwise.
        self._environment = environment
        self._source = source
        self._special_tokens = special_tokens
        self._skeletons: dict[tuple[str, ...], _Skeleton | None] = {}

    @cached_property
    def _template(self) -> jinja2.Template:
        try:
            return self._environment.from_string(self._source)
        except jinja2.TemplateError as error:
            raise UserError(
                f"The base model's chat template is not valid: {error}. Choose another base model."
            ) from None

    def text(self, messages: Sequence[Message], prompt: bool = False) -> str:
        """The conversation as text; with `prompt`, up to where the model is to answer.

        Raises:
            UserError: The template refuses the conversation, with its own words.
        """
        turns = [{"role": role, "content": content} for role, content in messages]
        try:
            return self._template.render(messages=turns, add_generation_prompt=prompt, **self._special_tokens)
        except jinja2.TemplateError as error:
            roles = ", ".join(role for role, _ in messages)
            raise UserError(
                f"The base model's chat template refuses a conversation of {roles}: {error}. "
                "Leave out system messages (system_prompt) or choose another base model."
            ) from None

    def render(self, messages: Sequence[Message]) -> Rendered:
        """The conversation as text, and where its answers are.

        Raises:
            TemplateMismatch: The template has no prompt that is the beginning of this text.
            UserError: The template refuses the conversation.
        """
        text = self.text(messages)
        roles = tuple(role for role, _ in messages)
        if roles not in self._skeletons:
            self._skeletons[roles] = self._skeleton(roles)
        skeleton = self._skeletons[roles]
        answers = _lay_out(skeleton, messages, text) if skeleton else None
        # Linear in the turns. The general way renders each prompt anew, for templates that look at the contents.
        return Rendered(text, self._answers_by_prompts(messages, text) if answers is None else answers)

    def _skeleton(self, roles: tuple[str, ...]) -> _Skeleton | None:
        """None if the template does not just write each content once, in order."""
        marks = [f"\ue000{i}\ue001" for i in range(len(roles))]
        messages = list(zip(roles, marks, strict=True))
        text = self.text(messages)
        between: list[str] = []
        position = 0
        for mark in marks:
            start = text.find(mark, position)
            if start < 0:
                return None
            between.append(text[position:start])
            position = start + len(mark)
        between.append(text[position:])
        try:
            answers = self._answers_by_prompts(messages, text)
        except TemplateMismatch:
            return None
        starts = iter(start for start, _ in answers)
        headers = {i: text.index(marks[i]) - next(starts) for i, role in enumerate(roles) if role == "assistant"}
        return _Skeleton(tuple(between), headers)

    def _answers_by_prompts(self, messages: Sequence[Message], text: str) -> list[tuple[int, int]]:
        answers: list[tuple[int, int]] = []
        for i, (role, content) in enumerate(messages):
            if role == "assistant":
                prompt = self.text(messages[:i], prompt=True)
                start = text.find(content, len(prompt))
                if not text.startswith(prompt) or start < 0:
                    raise TemplateMismatch
                answers.append((len(prompt), start + len(content)))
        return answers


def _lay_out(skeleton: _Skeleton, messages: Sequence[Message], text: str) -> list[tuple[int, int]] | None:
    """Answers by arithmetic; None if `text` is not the skeleton filled with the contents."""
    parts: list[str] = []
    answers: list[tuple[int, int]] = []
    position = 0
    for i, (role, content) in enumerate(messages):
        parts += (skeleton.between[i], content)
        start = position + len(skeleton.between[i])
        position = start + len(content)
        if role == "assistant":
            answers.append((start - skeleton.headers[i], position))
    parts.append(skeleton.between[-1])
    return answers if "".join(parts) == text else None


def load_chat_template(model: Path) -> ChatTemplate:
    """Read the chat template of a Hugging Face model directory.

    Raises:
        UserError: It has none.
    """
    config = read_json(model / "tokenizer_config.json")
    file = model / "chat_template.jinja"
    source = file.read_text(encoding="utf-8") if file.is_file() else config.get("chat_template")
    if isinstance(source, list):  # the older form: several named templates
        source = next((entry["template"] for entry in source if entry.get("name") == "default"), None)
    if not source:
        raise UserError(
            "The base model has no chat template (neither chat_template.jinja nor chat_template in "
            "tokenizer_config.json). Choose an instruct model."
        )
    return ChatTemplate(source, special_tokens(config))


def special_tokens(config: dict[str, Any]) -> dict[str, str]:
    """Name and text of the special tokens in a tokenizer_config.json."""
    found = {}
    for name in _SPECIAL:
        token = config.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            found[name] = token
    return found


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; {} if there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _raise(message: str) -> str:
    raise jinja2.TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers: jinja2's own escapes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
