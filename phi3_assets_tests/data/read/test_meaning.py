"""Keys that change what a row means are used, or refuse the row by name; they were dropped without a word."""

import json

import pytest

from phi3_assets.data import NOT_LEARNT
from phi3_assets.data.read.meaning import BadRow
from phi3_assets.data.read.shapes import ShapeSettings, detect_shape
from phi3_assets_tests.data.running import PHI3, Run, write_model, write_sample

Q, A = "Which key opens locker 7?", "The brass one."
ASK, TELL = {"role": "user", "content": Q}, {"role": "assistant", "content": A}
PAIR = [("user", Q), ("assistant", A)]


def messages(row, **settings):
    shape = detect_shape(row, ShapeSettings("Question", "Best Answer", **settings))
    assert shape is not None
    return shape.messages(row)


USED = {
    "system beside messages": ({"messages": [ASK, TELL], "system": "Be kind."}, [("system", "Be kind."), *PAIR]),
    "system of sharegpt": (
        {"system": "Be kind.", "conversations": [{"from": "human", "value": Q}, {"from": "gpt", "value": A}]},
        [("system", "Be kind."), *PAIR],
    ),
    "system and history of alpaca": (
        {"instruction": Q, "input": "", "output": A, "system": "Be kind.", "history": [["Hello", "Hi."]]},
        [("system", "Be kind."), ("user", "Hello"), ("assistant", "Hi."), *PAIR],
    ),
    "context of dolly": (
        {"instruction": Q, "context": "Locker 7 is old.", "response": A},
        [("user", f"{Q}\n\nLocker 7 is old."), ("assistant", A)],
    ),
    "weight 0 in the middle": (
        {"messages": [ASK, {**TELL, "weight": 0}, {"role": "user", "content": "Sure?"}, TELL]},
        [("user", Q), (NOT_LEARNT, A), ("user", "Sure?"), ("assistant", A)],
    ),
    "weight 0 at the end": ({"messages": [ASK, TELL, ASK, {**TELL, "weight": 0.0}]}, PAIR),
    "chosen and rejected": ({"prompt": Q, "chosen": A, "rejected": "No idea."}, PAIR),
    "chosen as a conversation": ({"prompt": Q, "chosen": [ASK, TELL], "rejected": [ASK]}, PAIR),
    "chosen beside conversations": (
        {
            "conversations": [{"from": "human", "value": Q}],
            "chosen": {"from": "gpt", "value": A},
            "rejected": {"from": "gpt", "value": "x"},
        },
        PAIR,
    ),
    "a label that says nothing": ({"prompt": Q, "completion": A, "label": "billing"}, PAIR),
    "a label that is true": ({"prompt": Q, "completion": A, "label": True}, PAIR),
    "empty tools": ({"messages": [ASK, TELL], "tools": [], "images": None}, PAIR),
    "parts of text": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": Q}]}, TELL]},
        PAIR,
    ),
    "capitals, and names of other tools": (
        {"conversations": [{"role": "Human", "content": Q}, {"role": "AI", "content": A}]},
        PAIR,
    ),
    "from and value under messages": ({"messages": [{"from": "user", "value": Q}, {"from": "bot", "value": A}]}, PAIR),
    "developer": (
        {"messages": [{"role": "developer", "content": "Be kind."}, ASK, TELL]},
        [("system", "Be kind."), *PAIR],
    ),
    "messages as JSON in a column": ({"messages": json.dumps([ASK, TELL])}, PAIR),
    "messages in the body of a request": ({"custom_id": "1", "body": {"model": "m", "messages": [ASK, TELL]}}, PAIR),
    "messages in a list of their own": ({"messages": [[ASK, TELL]]}, PAIR),
    "a row that is a list": ([ASK, TELL], PAIR),
}


@pytest.mark.parametrize(("row", "expected"), USED.values(), ids=USED)
def test_used_where_the_shape_defines_them(row, expected):
    assert messages(row) == expected


REFUSED = {
    "tools": ({"messages": [ASK, TELL], "tools": [{"name": "open"}]}, "tool_use", "tools"),
    "tool calls": ({"messages": [ASK, {**TELL, "tool_calls": [{"id": "1"}]}]}, "tool_use", "tool_calls"),
    "a tool's turn": ({"messages": [ASK, {"role": "tool", "content": "x"}, TELL]}, "tool_use", "tool"),
    "images": ({"prompt": Q, "completion": A, "images": ["a.png"]}, "not_only_text", "images"),
    "an image part": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, TELL]},
        "not_only_text",
        "image_url",
    ),
    "reasoning": (
        {"messages": [ASK, {**TELL, "reasoning_content": "Locker 7..."}]},
        "reasoning_beside_answer",
        "reasoning_content",
    ),
    "label false": ({"prompt": Q, "completion": A, "label": False}, "rejected_answer", "label"),
    "label false in a csv": ({"Question": Q, "Best Answer": A, "label": "False"}, "rejected_answer", "label"),
    "nothing learnt": ({"messages": [ASK, {**TELL, "weight": 0}]}, "nothing_to_learn", ""),
    "half a weight": ({"messages": [ASK, {**TELL, "weight": 0.5}]}, "odd_weight", "weight"),
    "two system messages": (
        {"messages": [{"role": "system", "content": "a"}, ASK, TELL], "system": "b"},
        "several_system_messages",
        "system",
    ),
    "an unknown role": ({"messages": [{"role": "customer", "content": Q}, TELL]}, "unknown_role", "customer"),
}


@pytest.mark.parametrize(("row", "reason", "met"), REFUSED.values(), ids=REFUSED)
def test_else_the_row_is_refused_by_name(row, reason, met):
    with pytest.raises(BadRow) as caught:
        messages(row)
    assert (caught.value.reason, caught.value.met) == (reason, met)


def test_the_recipe_accepts_what_may_be_left_out():
    row = {"messages": [ASK, {**TELL, "reasoning_content": "Locker 7..."}], "tools": [{"name": "open"}]}
    assert messages(row, ignored=frozenset({"reasoning_content", "tools"})) == PAIR
    row = {"messages": [{"role": "Customer", "content": Q}, {"role": "agent", "content": A}]}
    assert messages(row, roles={"customer": "user", "agent": "assistant"}) == PAIR


def test_columns_that_nothing_is_made_of_are_listed_with_their_fill(tmp_path):
    run = Run(tmp_path, ignore_columns=["Ticket"])
    rows = [{"Question": f"Which key opens locker {i}?", "Best Answer": f"Key {i}.", "ticket": i} for i in range(40)]
    for row in rows[:7]:
        row["remark"] = "see also locker 9"
    rows[7]["remark"] = " "
    (run.data / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert run.ingest()["files"][0]["unused"] == {"remark": 7}


def test_an_answer_of_weight_0_is_read_and_not_learnt(tmp_path):
    run = Run(tmp_path)
    write_sample(run.data)
    turns = [ASK, {"role": "assistant", "content": "Wrongwrong.", "weight": 0}, ASK, TELL]
    (run.data / "w.jsonl").write_text("\n".join(json.dumps({"messages": turns, "n": i}) for i in range(1)))
    run.ingest()
    run.corpus(write_model(tmp_path / "model", PHI3, "<|end|>"))
    record = next(row for row in run.records() if row["file"] == "w.jsonl")
    if record["split"] == "test":
        item = next(item for item in run.tests() if item["id"] == record["id"])
        assert [turn["role"] for turn in item["messages"]] == ["user", "assistant", "user"]
        return
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    row = next(row for row in run.train() if row["id"] == record["id"])
    whole = tokenizer.decode(row["input_ids"], skip_special_tokens=False)
    learnt = tokenizer.decode([token for token in row["labels"] if token != -100], skip_special_tokens=False)
    assert "Wrongwrong." in whole
    assert learnt == f"{A}<|end|>"


def test_what_holds_rows_back_says_why_and_what_to_do(tmp_path):
    run = Run(tmp_path)
    turns = [{"role": "customer", "content": Q}, {"role": "agent", "content": A}]
    (run.data / "a.jsonl").write_text("\n".join(json.dumps({"messages": turns}) for _ in range(9)))
    with pytest.raises(Exception, match=r"a\.jsonl: 9 unknown_role \(met: 'customer'\).*role_names"):
        run.ingest()
