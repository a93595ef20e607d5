"""Talking to a model in a terminal: a conversation, one question, or a file of questions."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from phi3_assets.chat import Engine, Message, Reply, fit, stream, with_system
from phi3_assets.core.errors import UserError

HELP = "/new starts over, /system TEXT sets the system prompt, /quit or Ctrl-D ends; Ctrl-C stops an answer."


def converse(
    engine: Engine,
    *,
    system_prompt: str = "",
    max_new_tokens: int = 256,
    read: Callable[[str], str] = input,
    out: TextIO | None = None,
) -> None:
    """Talk until the user ends it.

    Args:
        engine: The model.
        system_prompt: As in training; "" for none.
        max_new_tokens: Longest answer.
        read: Asks for a line, given the prompt; raises EOFError at the end.
        out: Where answers go; None: stdout.
    """
    print(f"Talking to {engine.variant}. {HELP}", file=out)
    turns: list[Message] = []
    while True:
        try:
            line = read("> ").strip()
        except (EOFError, KeyboardInterrupt):
            print(file=out)
            return
        command, _, rest = line.partition(" ")
        if command == "/quit":
            return
        if command in ("/new", "/system"):
            turns = []
            system_prompt = rest.strip() if command == "/system" else system_prompt
            print("A new conversation.", file=out)
        elif command.startswith("/"):
            print(HELP, file=out)
        elif line:
            turns.append({"role": "user", "content": line})
            turns = fit(engine, system_prompt, turns, max_new_tokens)
            reply = Reply()
            try:
                for piece in stream(engine, with_system(system_prompt, turns), max_new_tokens, reply):
                    print(piece, end="", flush=True, file=out)
            except KeyboardInterrupt:
                pass  # the answer so far stays in the conversation
            except UserError as error:
                print(error, file=out)
                turns.pop()
                continue
            print(f"\n{figures(reply)}", file=out)
            turns.append({"role": "assistant", "content": reply.text})


def ask(
    engine: Engine,
    question: str,
    *,
    system_prompt: str = "",
    max_new_tokens: int = 256,
    out: TextIO | None = None,
    notes: TextIO | None = None,
) -> Reply:
    """One question; the answer goes to `out` (stdout) as it comes, the figures to `notes` (stderr), apart for pipes."""
    reply = Reply()
    for piece in stream(
        engine, with_system(system_prompt, [{"role": "user", "content": question}]), max_new_tokens, reply
    ):
        print(piece, end="", flush=True, file=out)
    print(file=out)
    print(figures(reply), file=notes or sys.stderr)
    return reply


def answer_file(
    engine: Engine, source: Path, target: Path, *, system_prompt: str = "", max_new_tokens: int = 256
) -> int:
    """Answer every question of a file; each answer is on disk before the next is asked.

    Args:
        engine: The model.
        source: .txt with a question a line, or .jsonl with "question" or "messages".
        target: .jsonl: question, answer, stopped, tokens, seconds.
        system_prompt: As in training; "" for none. Rows with messages of their own keep them.
        max_new_tokens: Longest answer.

    Returns:
        How many were answered.

    Raises:
        UserError: The source cannot be read, or the target exists.
    """
    count = 0
    try:
        file = target.open("x", encoding="utf-8")
    except FileExistsError:
        raise UserError(f"{target} exists and is not overwritten; move it or give another name.") from None
    with file:
        for messages in read_questions(source, system_prompt):
            reply = Reply()
            for _ in stream(engine, messages, max_new_tokens, reply):
                pass
            row = {
                "question": messages[-1]["content"],
                "answer": reply.text,
                "stopped": reply.stopped,
                "tokens": reply.tokens,
                "seconds": round(reply.first_token_s + reply.decode_s, 3),
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            count += 1
    return count


def read_questions(source: Path, system_prompt: str) -> Iterator[list[Message]]:
    """Conversations to answer, from a .txt or .jsonl file.

    Raises:
        UserError: No such file, another kind of file, or a line that is no question; names the line.
    """
    if source.suffix not in (".txt", ".jsonl"):
        raise UserError(f"{source}: questions come from .txt (one a line) or .jsonl (question or messages).")
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{source} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UserError(f"{source} is not UTF-8 text.") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if source.suffix == ".txt":
            yield with_system(system_prompt, [{"role": "user", "content": line.strip()}])
            continue
        try:
            row = json.loads(line)
            messages = row.get("messages") or with_system(
                system_prompt, [{"role": "user", "content": str(row["question"])}]
            )
        except (ValueError, KeyError, AttributeError):
            raise UserError(f'{source}, line {number}: needs a JSON object with "question" or "messages".') from None
        yield messages


def figures(reply: Reply) -> str:
    """Tokens and speed of an answer, in one line."""
    cut = "" if reply.stopped else ", cut off: the context is full" if reply.context_full else ", cut off"
    return (
        f"[{reply.tokens} tokens{cut}, first after {reply.first_token_s:.2f} s, then {reply.tokens_per_s:.1f} tokens/s]"
    )
