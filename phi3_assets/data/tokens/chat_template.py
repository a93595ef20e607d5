"""A model's chat template, rendered as transformers renders it, without importing transformers."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from phi3_assets.core.errors import UserError
from phi3_assets.data import Message
from phi3_assets.data.tokens.blind import copies_contents

_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


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
        self._special_tokens = special_tokens
        self.source = source

    @cached_property
    def _template(self) -> jinja2.Template:
        try:
            return self._environment.from_string(self.source)
        except jinja2.TemplateError as error:
            raise UserError(
                f"The base model's chat template is not valid: {error}. Choose another base model."
            ) from None

    @cached_property
    def copies_contents(self) -> bool:
        """True if it is proved that the template never looks at what messages say."""
        return copies_contents(self._environment.parse(self.source))

    def text(self, messages: list[Message], prompt: bool = False) -> str:
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
                "Leave out system messages (system_prompt), set text_template, or choose another base model."
            ) from None


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
            "tokenizer_config.json). Choose an instruct model, or set text_template in the recipe."
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
