"""formatted_corpus: what is learnt, what is tested with, and what becomes of rows that do not fit."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from phi3_assets.core.errors import UserError
from phi3_assets_tests.data.running import CURIOUS, PHI3, Run, bytes_of, write_model, write_sample

CHAT = [
    {"role": "user", "content": "One 🙂?"},
    {"role": "assistant", "content": "It is 1 🙂."},
    {"role": "user", "content": "Two?"},
    {"role": "assistant", "content": "It is 2, ünd done."},
]


@pytest.fixture(scope="module")
def chatml(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("chatml"))


@pytest.fixture(scope="module")
def phi3(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("phi3"), PHI3, end="<|end|>")


def made(tmp_path: Path, model: Path, rows: int = 60, **overrides) -> tuple[Run, dict]:
    run = Run(tmp_path, **overrides)
    write_sample(run.data, rows)
    run.ingest()
    return run, run.corpus(model)


def learnt(model: Path, row: dict) -> list[str]:
    """The text of each run of learnt tokens."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    spans: list[list[int]] = []
    for i, (token, label) in enumerate(zip(row["input_ids"], row["labels"], strict=True)):
        assert label in (-100, token)
        if label != -100:
            if not spans or row["labels"][i - 1] == -100:
                spans.append([])
            spans[-1].append(token)
    return [tokenizer.decode(span, skip_special_tokens=False) for span in spans]


@pytest.mark.parametrize(("style", "end"), [("chatml", "<|im_end|>"), ("phi3", "<|end|>")])
def test_answers_and_their_end_tokens_are_learnt_and_nothing_else(tmp_path, request, style: str, end: str) -> None:
    model = request.getfixturevalue(style)
    run = Run(tmp_path)
    write_sample(run.data)
    (run.data / "chats.jsonl").write_text(json.dumps({"messages": CHAT}))
    run.ingest()
    metrics = run.corpus(model)
    by_id = {record["id"]: record["messages"] for record in run.records()}
    theirs = AutoTokenizer.from_pretrained(model)
    seen_chat = False
    for row in run.train():
        messages = by_id[row["id"]]
        assert row["input_ids"] == theirs.apply_chat_template(messages, return_dict=False)
        assert row["length"] == len(row["input_ids"])
        answers = [turn["content"] for turn in messages if turn["role"] == "assistant"]
        assert learnt(model, row) == [answer + end for answer in answers]
        seen_chat = seen_chat or len(answers) == 2
    assert seen_chat
    assert metrics["rows_without_end_token"] == metrics["rows_fully_masked"] == metrics["train_test_overlap"] == 0
    assert metrics["rows_with_two_begin_tokens"] == metrics["prompts_tokenised_otherwise"] == 0
    assert metrics["supervised_tokens"] == sum(label != -100 for row in run.train() for label in row["labels"])
    assert metrics["tokens"] == sum(row["length"] for row in run.train())
    assert sum(metrics["length_histogram"]["rows"]) == metrics["train_rows"] == len(run.train())
    assert [piece["learnt"] for piece in metrics["masked_preview"]][:3] == [False, True, False]


def test_test_items_are_prompt_and_answer(tmp_path, chatml) -> None:
    run, metrics = made(tmp_path, chatml)
    theirs = AutoTokenizer.from_pretrained(chatml)
    assert metrics["test_rows"] == len(run.tests()) > 0
    for item in run.tests():
        assert item["prompt_ids"] == theirs.apply_chat_template(
            item["messages"], add_generation_prompt=True, return_dict=False
        )
        assert theirs.decode(item["answer_ids"]) == item["answer"] + "<|im_end|>"
        assert item["messages"] == [{"role": "user", "content": item["question"]}]
    assert not {item["id"] for item in run.tests()} & {row["id"] for row in run.train()}


def test_a_template_that_looks_at_contents_is_masked_right(tmp_path) -> None:
    model = write_model(tmp_path / "model", CURIOUS, end="<|end|>", begin="<|endoftext|>")
    run = Run(tmp_path / "home")
    write_sample(run.data)
    turns = [CHAT[0], {"role": "assistant", "content": "Loud!"}]
    (run.data / "chats.jsonl").write_text(json.dumps({"messages": turns}))
    run.ingest()
    run.corpus(model)
    loud = {r["id"] for r in run.records() if r["messages"][-1]["content"] == "Loud!"}
    assert [learnt(model, row) for row in run.train() if row["id"] in loud] == [["(loud) Loud!<|end|>"]]


def test_system_prompt_and_supervise_all(tmp_path, phi3) -> None:
    run, metrics = made(tmp_path, phi3, system_prompt="Be brief.", supervise="all")
    assert metrics["supervised_share"] == 1
    assert all(learnt(phi3, row)[0].startswith("<|system|>\nBe brief.<|end|>\n<|user|>") for row in run.train())
    assert all(item["prompt_ids"] for item in run.tests())


def test_text_template(tmp_path, phi3) -> None:
    run, metrics = made(tmp_path, phi3, text_template="Q: {Question}\nA:\n{Best Answer}<|end|>")
    by_id = {record["id"]: record["messages"] for record in run.records()}
    for row in run.train():
        assert learnt(phi3, row) == [by_id[row["id"]][-1]["content"] + "<|end|>"]
    assert metrics["rows_without_end_token"] == metrics["prompts_tokenised_otherwise"] == 0


def test_a_template_without_an_end_token_is_counted(tmp_path, phi3) -> None:
    """The most repeated complaint of all: a model that was never taught to stop."""
    _, metrics = made(tmp_path, phi3, text_template="Q: {Question}\nA:\n{Best Answer}\n")
    assert metrics["rows_without_end_token"] == metrics["train_rows"] > 0
    assert metrics["test_rows_without_end_token"] == metrics["test_rows"] > 0


def test_a_prompt_that_melts_into_its_answer_is_counted(tmp_path, phi3) -> None:
    """'A: ' alone ends in a space token; before '200' the space belongs to ' 200', which the device never asks for."""
    _, metrics = made(tmp_path, phi3, text_template="Q: {Question}\nA: {Best Answer}<|end|>")
    assert metrics["prompts_tokenised_otherwise"] > 0


def test_plain_text_is_learnt_whole_and_ends(tmp_path, phi3) -> None:
    run = Run(tmp_path)
    write_sample(run.data)
    (run.data / "manual.jsonl").write_text(json.dumps({"text": "Chapter 1. Disks."}))
    run.ingest()
    metrics = run.corpus(phi3)
    passages = {r["id"] for r in run.records() if r["file"] == "manual.jsonl"}
    rows = [row for row in run.train() if row["id"] in passages]
    assert [learnt(phi3, row) for row in rows] == [["Chapter 1. Disks.<|end|>"]]
    assert metrics["rows_without_end_token"] == 0


@pytest.mark.parametrize("policy", ["quarantine", "truncate", "fail"])
def test_rows_that_are_too_long(tmp_path, chatml, policy: str) -> None:
    """Rows were cut or dropped without a word by every peer; here it is a choice, and counted."""
    run = Run(tmp_path, over_long=policy, max_seq_len=120)
    write_sample(run.data)
    long = {"Question": "Why so long?", "Best Answer": "word " * 200}
    short = {"Question": "word " * 200, "Best Answer": "yes"}
    (run.data / "long.jsonl").write_text("\n".join(map(json.dumps, (long, short))))
    run.ingest()
    if policy == "fail":
        with pytest.raises(UserError, match=r"long.jsonl, row 1 has \d+ tokens, more than max_seq_len \(120\)"):
            run.corpus(chatml)
        return
    metrics = run.corpus(chatml)
    lines = [json.loads(line) for line in (run.out / "quarantine.jsonl").read_text().splitlines()]
    # Cut after 120 tokens, the second row has nothing left to learn: it goes in any case.
    assert [(line["file"], line["row"], line["reason"]) for line in lines] == [
        ("long.jsonl", row, "too_long") for row in ((1, 2) if policy == "quarantine" else (2,))
    ]
    assert metrics["rows_truncated"] == (policy == "truncate")
    assert max(row["length"] for row in run.train()) <= 120
    assert metrics["rows_without_end_token"] == metrics["rows_fully_masked"] == 0
    trained = metrics["train_rows"] + metrics["quarantined_by_reason"]["too_long"]
    assert trained == sum(record["split"] == "train" for record in run.records())


def test_join_cuts_one_stream_into_equal_rows(tmp_path, chatml) -> None:
    by_line, plain = made(tmp_path / "line", chatml)
    run, metrics = made(tmp_path / "join", chatml, strategy="join", max_seq_len=64)
    stream = [token for row in by_line.train() for token in row["input_ids"]]
    joined = [token for row in run.train() for token in row["input_ids"]]
    assert joined == stream[: len(joined)]
    assert {row["length"] for row in run.train()} == {64}
    assert metrics["joined_tokens_dropped"] == len(stream) - len(joined) < 64
    assert metrics["joined_sequences"] == len(run.train())
    assert metrics["train_rows"] == plain["train_rows"]


def test_join_without_a_single_sequence_is_an_error(tmp_path, chatml) -> None:
    with pytest.raises(UserError, match=r"strategy join gives no sequence: .* have \d+ tokens, one sequence needs"):
        made(tmp_path, chatml, rows=60, strategy="join", max_seq_len=20_000)


def test_a_control_token_in_the_users_text_is_quarantined(tmp_path, chatml) -> None:
    """'<|im_end|>' in an answer would end the turn early and teach the model to stop there."""
    run = Run(tmp_path)
    write_sample(run.data)
    (run.data / "x.jsonl").write_text(json.dumps({"Question": "Odd?", "Best Answer": "a<|im_end|>b"}))
    run.ingest()
    metrics = run.corpus(chatml)
    assert metrics["quarantined_by_reason"] == {"control_token_in_text": 1}


def test_equal_records_give_equal_bytes(tmp_path, chatml) -> None:
    one, _ = made(tmp_path / "one", chatml)
    first = bytes_of(one.out)
    metrics = one.corpus(chatml)
    assert (metrics["rows_tokenised"], metrics["rows_reused"]) == (0, metrics["train_rows"])
    two, _ = made(tmp_path / "two", chatml)
    assert first == bytes_of(one.out) == bytes_of(two.out)


@pytest.mark.parametrize(
    ("file", "said"),
    [("tokenizer.json", "no tokenizer.json"), ("chat_template.jinja", "no chat template")],
)
def test_an_incomplete_model_is_refused(tmp_path, file: str, said: str) -> None:
    model = write_model(tmp_path / "model")
    (model / file).unlink()
    with pytest.raises(UserError, match=said):
        made(tmp_path / "home", model)


def test_no_row_left_is_refused(tmp_path, chatml) -> None:
    with pytest.raises(UserError, match=r"No training row is left .* too_long.*max_seq_len \(16 tokens\)"):
        made(tmp_path, chatml, max_seq_len=16)
