"""Forms in which training data is passed around: each row becomes the same messages, or is refused with a way out."""

import json
from typing import Any

import pytest

from phi3_assets.core.errors import UserError
from phi3_assets.data import Message
from phi3_assets.data.read.meaning import BadRow
from phi3_assets.data.read.shapes import ShapeSettings, detect_shape
from phi3_assets_tests.data.running import Run, write_sample

SETTINGS = ShapeSettings("Question", "Best Answer")
Q, A = "Where is the spare fuse?", "In drawer 4."
PAIR: list[Message] = [("user", Q), ("assistant", A)]
BRIEF: list[Message] = [("system", "Be brief."), *PAIR]
TWO: list[Message] = [("user", "Which fuse?"), ("assistant", "Which one blew?"), *PAIR]
PREFACE = "Below is a request. Answer it."


def turns(role: str = "role", content: str = "content", user: str = "user", assistant: str = "assistant") -> list[Any]:
    return [{role: user, content: Q}, {role: assistant, content: A}]


READ: dict[str, tuple[dict[str, Any], list[Message]]] = {
    "question and answer": ({"question": Q, "answer": A, "id": 7}, PAIR),
    "question with its context": (
        {"question": Q, "context": "Hall 2.", "answer": A},
        [("user", f"{Q}\n\nHall 2."), ("assistant", A)],
    ),
    "query and response": ({"query": Q, "response": A, "history": [["Which fuse?", "Which one blew?"]]}, TWO),
    "input_text and output_text": ({"input_text": Q, "output_text": A}, PAIR),
    "turns in prompt and completion": ({"prompt": turns()[:1], "completion": turns()[1:]}, PAIR),
    "OpenAI's preferences": (
        {
            "input": {"messages": turns()[:1], "tools": []},
            "preferred_output": turns()[1:],
            "non_preferred_output": [{"role": "assistant", "content": "No idea."}],
        },
        PAIR,
    ),
    "Gemini": (
        {
            "systemInstruction": {"role": "system", "parts": [{"text": "Be brief."}]},
            "contents": [{"role": "user", "parts": [{"text": Q}]}, {"role": "model", "parts": [{"text": A}]}],
        },
        BRIEF,
    ),
    "Bedrock": (
        {
            "system": [{"text": "Be brief."}],
            "messages": [{"role": "user", "content": [{"text": Q}]}, {"role": "assistant", "content": [{"text": A}]}],
        },
        BRIEF,
    ),
    "author": ({"messages": turns("author", user="user", assistant="bot")}, PAIR),
    "a column of turns with another name": ({"id": "7", "dialog": turns("speaker", "text", "Human", "AI")}, PAIR),
    "roles and contents side by side": ({"conversations": {"from": ["human", "gpt"], "value": [Q, A]}}, PAIR),
    "an empty system message": ({"messages": [{"role": "system", "content": ""}, *turns()]}, PAIR),
    "ChatML": (
        {
            "text": "<|im_start|>system\nBe brief.<|im_end|>\n"
            f"<|im_start|>user\n{Q}<|im_end|>\n<|im_start|>assistant\n{A}"
        },
        BRIEF,
    ),
    "ChatML up to the answer": (
        {"prompt": f"<|im_start|>user\n{Q}<|im_end|>\n<|im_start|>assistant\n", "completion": f"{A}<|im_end|>"},
        PAIR,
    ),
    "Phi-3": ({"text": f"<s><|user|>\n{Q}<|end|>\n<|assistant|>\n{A}<|end|><|endoftext|>"}, PAIR),
    "Llama 2": ({"text": f"<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n{Q} [/INST] {A} </s>"}, BRIEF),
    "Llama 2, twice": (
        {"text": f"<s>[INST] Which fuse? [/INST] Which one blew? </s><s>[INST] {Q} [/INST] {A} </s>"},
        TWO,
    ),
    "Llama 3": (
        {
            "text": f"<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{Q}<|eot_id|>"
            f"<|start_header_id|>assistant<|end_header_id|>\n\n{A}<|eot_id|>"
        },
        PAIR,
    ),
    "Gemma": (
        {"text": f"<bos><start_of_turn>user\n{Q}<end_of_turn>\n<start_of_turn>model\n{A}<end_of_turn>\n"},
        PAIR,
    ),
    "### Human": ({"text": f"### Human: {Q}### Assistant: {A}"}, PAIR),
    "### Instruction": (
        {"text": f"{PREFACE}\n\n### Instruction:\n{Q}\n\n### Input:\nHall 2.\n\n### Response:\n{A}"},
        [("system", PREFACE), ("user", f"{Q}\n\nHall 2."), ("assistant", A)],
    ),
    "Human: and Assistant:": ({"text": f"\n\nHuman: {Q}\n\nAssistant: {A}"}, PAIR),
    "chosen and rejected as texts": (
        {
            "chosen": f"\n\nHuman: Which fuse?\n\nAssistant: Which one blew?\n\nHuman: {Q}\n\nAssistant: {A}",
            "rejected": f"\n\nHuman: {Q}\n\nAssistant: No idea.",
        },
        TWO,
    ),
}


@pytest.mark.parametrize(("row", "expected"), READ.values(), ids=READ)
def test_a_form_is_read(row: dict[str, Any], expected: list[Message]) -> None:
    shape = detect_shape(row, SETTINGS)
    assert shape is not None
    assert shape.messages(row) == expected
    assert shape.name != "text"
    assert not shape.unused.rows


PASSAGES = [
    "The user's manual: press Start.",
    "Play: a dialogue.\nHuman: who is there?\nAssistant: me.",
    "## Instruction\nTurn left. ### Response times: two hours",
]


@pytest.mark.parametrize("text", PASSAGES)
def test_a_passage_stays_one(text: str) -> None:
    shape = detect_shape({"text": text}, SETTINGS)
    assert shape is not None
    assert shape.messages({"text": text}) == [("text", text)]


def test_passages_can_be_asked_for() -> None:
    row = READ["Human: and Assistant:"][0]
    shape = detect_shape(row, ShapeSettings("Question", "Best Answer", shape="text"))
    assert shape is not None
    assert [role for role, _ in shape.messages(row)] == ["text"]


REFUSED: dict[str, tuple[list[Any], str]] = {
    "tools in the body of a request": (
        [{"input": {"messages": turns()[:1], "tools": [{"name": "f"}]}, "preferred_output": turns()[1:]}],
        "tool_use",
    ),
    "a turn in each row": ([{"thread": 1, "role": "user", "content": Q}, *turns()], "turn_a_row"),
    "the messages of a tree": ([{"text": Q, "role": "prompter", "parent_id": None}], "turn_a_row"),
    "a tree": (
        [{"prompt": {"text": Q, "role": "prompter", "replies": [{"text": A, "role": "assistant"}]}}],
        "turn_a_row",
    ),
    "a picture in a part": (
        [{"contents": [{"role": "user", "parts": [{"inlineData": {"data": "x"}}, {"text": Q}]}, turns()[1]]}],
        "not_only_text",
    ),
    "chosen and rejected as mere answers": ([{"chosen": A, "rejected": "No idea."}], "no_turns"),
}


@pytest.mark.parametrize(("rows", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_form_is_refused_with_a_way_out(tmp_path: Any, rows: list[Any], reason: str) -> None:
    run = Run(tmp_path)
    (run.data / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(UserError, match=f"{len(rows)} {reason}.*: .*(write|ignore_columns)"):
        run.ingest()


def test_a_row_that_is_not_written_out_like_the_others_is_refused() -> None:
    shape = detect_shape(READ["### Human"][0], SETTINGS)
    assert shape is not None
    with pytest.raises(BadRow, match="no_turns"):
        shape.messages({"text": "A passage."})


def test_what_a_written_out_prompt_leaves_aside_is_told() -> None:
    row = {**READ["ChatML up to the answer"][0], "context": "Hall 2."}
    shape = detect_shape(row, SETTINGS)
    assert shape is not None
    assert shape.messages(row) == PAIR
    assert dict(shape.unused.rows) == {"context": 1}


def test_rows_under_keys_are_rows(tmp_path: Any) -> None:
    run = Run(tmp_path)
    write_sample(run.data)
    rows = {f"row-{i}": {"Question": f"What is in drawer {i}?", "Best Answer": f"Fuse {i}."} for i in range(30)}
    (run.data / "keyed.json").write_text(json.dumps(rows))
    entry = next(file for file in run.ingest()["files"] if file["file"] == "keyed.json")
    assert (entry["rows"], entry["readable_rows"]) == (30, 30)


@pytest.mark.parametrize("size", [5, 200_000])
@pytest.mark.parametrize("by_number", [False, True])
def test_a_table_by_columns_is_refused_with_a_way_out(tmp_path: Any, size: int, by_number: bool) -> None:
    run = Run(tmp_path)
    columns = {"Question": [f"What is in drawer {i}?" for i in range(size)], "Best Answer": ["A fuse."] * size}
    value = {name: dict(enumerate(values)) for name, values in columns.items()} if by_number else columns
    (run.data / "a.json").write_text(json.dumps(value))
    with pytest.raises(UserError, match="orient='records'"):
        run.ingest()
