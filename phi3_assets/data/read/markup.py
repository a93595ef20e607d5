"""Conversations that somebody wrote out as one text, with the marks of a chat template or with names before colons.

Learnt as passages they would teach the marks of another template than the one the model is asked with, and none of
them could be a test.
"""

import re
from typing import NamedTuple

from phi3_assets.data import Message
from phi3_assets.data.read.meaning import BadRow

_INPUT = "input"
"""What an instruction is about, in Alpaca's form."""
_SPEAKERS = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "instruction", "prompter", "inst"), "user"),
    **dict.fromkeys(("assistant", "model", "response", "gpt", "ai", "bot", "/inst"), "assistant"),
    "input": _INPUT,
}


class Markup(NamedTuple):
    """One way of writing conversations out.

    Attributes:
        name: What it looks like, for the report.
        opening: What a turn begins with; its group is who speaks.
        endings: What stands behind turns, or around the whole, and is no text.
        told_by: What must be found to know it: "marks", which stand for nothing else, or else both speakers, "anywhere"
            or from the text's "beginning" on.
    """

    name: str
    opening: re.Pattern[str]
    endings: re.Pattern[str]
    told_by: str = "marks"


_SPEAKER = r"(system|developer|user|human|assistant|model)"
_MARKUPS = (
    Markup(
        "<|im_start|>",
        re.compile(rf"<\|im_start\|>\s*{_SPEAKER}\b[ \t]*\n?"),
        re.compile(r"<\|im_end\|>|<\|endoftext\|>"),
    ),
    Markup(
        "<|start_header_id|>",
        re.compile(rf"<\|start_header_id\|>\s*{_SPEAKER}\s*<\|end_header_id\|>"),
        re.compile(r"<\|begin_of_text\|>|<\|eot_id\|>|<\|end_of_text\|>"),
    ),
    Markup(
        "<start_of_turn>",
        re.compile(rf"<start_of_turn>\s*{_SPEAKER}\b[ \t]*\n?"),
        re.compile(r"<bos>|<eos>|<end_of_turn>"),
    ),
    Markup(
        "<|user|>",
        re.compile(rf"<\|{_SPEAKER}\|>"),
        re.compile(r"<s>|</s>|<\|end\|>|<\|endoftext\|>"),
    ),
    Markup("[INST]", re.compile(r"\[(/?INST)\]"), re.compile(r"<s>|</s>")),
    Markup(
        "### Instruction:",
        re.compile(r"###\s*(System|User|Human|Instruction|Input|Assistant|Response)\s*:", re.IGNORECASE),
        re.compile(r"<s>|</s>|<\|endoftext\|>"),
    ),
    Markup(
        "USER: and ASSISTANT:",
        re.compile(r"\b(USER|ASSISTANT):"),
        re.compile(r"<s>|</s>|<\|endoftext\|>"),
        told_by="anywhere",
    ),
    Markup(
        "Human: and Assistant:",
        re.compile(r"^[ \t]*(System|User|Human|Assistant)[ \t]*:", re.IGNORECASE | re.MULTILINE),
        re.compile(r"<s>|</s>|<\|endoftext\|>"),
        told_by="beginning",
    ),
)
_SYSTEM_WITHIN = re.compile(r"\s*<<SYS>>(.*?)<</SYS>>", re.DOTALL)


def markup_of(text: object) -> Markup | None:
    """How a text is written out, if it is: somebody asks in it."""
    if not isinstance(text, str):
        return None
    for markup in _MARKUPS:
        found = list(markup.opening.finditer(text))
        speakers = set(map(_speaker, found))
        if "user" not in speakers or (markup.told_by != "marks" and "assistant" not in speakers):
            continue
        if markup.told_by != "beginning" or not text[: found[0].start()].strip():
            return markup
    return None


def written_out(text: str, markup: Markup, column: str, answer: str | None = None) -> list[Message]:
    """The messages of a text; what stands before the first turn is its system message.

    Args:
        text: A conversation, or what comes before its last answer.
        markup: How it is written out.
        column: Where it stands, for the counts.
        answer: The last answer, where that stands in a column of its own.

    Raises:
        BadRow: It is not written so, or a turn is empty.
    """
    messages = _turns(text, markup)
    if not messages:
        raise BadRow("no_turns", column)
    if answer is not None:
        if messages[-1] == ("assistant", ""):
            messages.pop()  # the mark behind which the answer is to stand
        messages += _turns(answer, markup) or [("assistant", markup.endings.sub("", answer).strip())]
    if not all(content for _, content in messages):
        raise BadRow("empty_text")
    return messages


def _turns(text: str, markup: Markup) -> list[Message]:
    openings = list(markup.opening.finditer(text))
    if not openings:
        return []
    preface = markup.endings.sub("", text[: openings[0].start()]).strip()
    messages: list[Message] = [("system", preface)] if preface else []
    ends = [each.start() for each in openings[1:]] + [len(text)]
    for opening, end in zip(openings, ends, strict=True):
        content = markup.endings.sub("", text[opening.end() : end])
        speaker = _speaker(opening)
        if speaker == "user" and (within := _SYSTEM_WITHIN.match(content)):
            messages.append(("system", within[1].strip()))
            content = content[within.end() :]
        content = content.strip()
        if speaker != _INPUT:
            messages.append((speaker, content))
        elif content:
            if not messages or messages[-1][0] != "user":
                raise BadRow("wrong_turn_order", "input")
            messages[-1] = ("user", f"{messages[-1][1]}\n\n{content}")
    return messages


def _speaker(opening: re.Match[str]) -> str:
    return _SPEAKERS[opening[1].casefold()]
