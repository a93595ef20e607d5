"""All variants give the answers that the evaluation scored, streamed whole."""

import io
import json
import subprocess
import sys

import pytest

from phi3_assets.chat import Reply, fit, stream
from phi3_assets.chat.engines import open_engine
from phi3_assets.chat.terminal import answer_file, ask, converse
from phi3_assets.core.errors import UserError
from phi3_assets.evaluation import torch_scorer
from phi3_assets.evaluation.items import load_items
from phi3_assets.models.end_tokens import end_token_ids
from phi3_assets_tests.conftest import clean_env

pytest_plugins = ["phi3_assets_tests.evaluation.tiny"]
VARIANTS = ("base", "adapter", "merged", "int4")


@pytest.fixture(scope="module")
def engines(chain):
    fp32 = {**chain, "onnx_int4_model": chain["onnx_fp32_model"]}
    return {variant: open_engine(variant, fp32) for variant in VARIANTS}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_answer_as_the_evaluation_scored(engines, chain, variant):
    """On the unquantised export adapter, merged and int4 are the same model."""
    items = load_items(chain["formatted_corpus"] / "test.jsonl")
    folder = chain["base_model" if variant == "base" else "merged_model"]
    scores = torch_scorer.score(torch_scorer.load_model(folder), items, end_token_ids(folder), 12)
    engine = engines[variant]
    for item, score in zip(items, scores, strict=True):
        assert tuple(engine.encode(item.prompt_messages)) == item.prompt_ids
        tokens = list(engine.generate(item.prompt_ids, 12))
        assert tuple(tokens[: len(score.generated_ids)]) == score.generated_ids
        assert (tokens[-1] in engine.ends) == score.stopped


@pytest.mark.parametrize("variant", VARIANTS)
def test_text_that_spans_tokens_is_streamed_whole(engines, variant):
    """Letters outside ASCII are several tokens here; none may come out as a replacement character."""
    text = "Grüße, naïve 🦀 日本"
    engine = engines[variant]
    ids = engine.encode([{"role": "user", "content": text}])
    decode = engine.text_stream()
    streamed = "".join(decode(token) for token in ids)
    assert text in streamed
    assert "\ufffd" not in streamed


@pytest.mark.parametrize("variant", VARIANTS)
def test_reply_counts_what_was_streamed(engines, variant):
    reply = Reply()
    pieces = list(stream(engines[variant], [{"role": "user", "content": "2 + 2"}], 6, reply))
    assert "".join(pieces) == reply.text
    assert reply.tokens <= 6
    assert reply.first_token_s > 0
    assert reply.tokens < 2 or reply.tokens_per_s > 0


def lines(*texts):
    """A keyboard that types these lines and then Ctrl-D; "^C" interrupts."""
    waiting = list(texts)

    def read(prompt):
        if not waiting:
            raise EOFError
        line = waiting.pop(0)
        if line == "^C":
            raise KeyboardInterrupt
        return line

    return read


class Recorder:
    """An engine that notes the prompts it gets and always answers "ok"."""

    variant, context_tokens, ends = "int4", 60, {0}

    def __init__(self):
        self.seen = []

    def encode(self, messages):
        self.seen.append(list(messages))
        return [1] * sum(len(message["content"]) for message in messages)

    def generate(self, prompt_ids, max_new_tokens):
        yield from (5, 0)

    def text_stream(self):
        return lambda token: "ok"


def test_a_conversation_keeps_its_turns_until_it_starts_over():
    engine, out = Recorder(), io.StringIO()
    converse(engine, system_prompt="be kind", max_new_tokens=8, read=lines("one", "two", "/new", "three"), out=out)
    asked = [[message["content"] for message in messages] for messages in engine.seen]
    assert ["be kind", "one", "ok", "two"] in asked
    assert asked[-1] == ["be kind", "three"]
    assert "ok\n[1 tokens, first after" in out.getvalue()


def test_commands():
    engine, out = Recorder(), io.StringIO()
    converse(engine, read=lines("/help", "/system be brief", "", "hi", "/quit", "never"), max_new_tokens=8, out=out)
    assert [message["content"] for message in engine.seen[-1]] == ["be brief", "hi"]
    assert out.getvalue().count("/quit or Ctrl-D") == 2


def test_old_turns_make_room():
    turns = [{"role": role, "content": "x" * 12} for role in ("user", "assistant", "user", "assistant", "user")]
    assert fit(Recorder(), "", turns, 20) == turns[2:]
    assert fit(Recorder(), "", turns, 0) == turns


def test_a_question_too_long_does_not_end_the_conversation():
    out = io.StringIO()
    converse(Recorder(), read=lines("x" * 70, "hi"), max_new_tokens=8, out=out)
    assert "70 tokens and the model's context 60: no room" in out.getvalue()
    assert "ok\n[1 tokens" in out.getvalue()


def test_one_question_leaves_the_answer_alone_on_stdout():
    out, notes = io.StringIO(), io.StringIO()
    ask(Recorder(), "hi", out=out, notes=notes)
    assert out.getvalue() == "ok\n"
    assert "tokens/s" in notes.getvalue()


def test_a_file_of_questions(tmp_path):
    source, target = tmp_path / "q.jsonl", tmp_path / "a.jsonl"
    own = [{"role": "system", "content": "own"}, {"role": "user", "content": "b"}]
    source.write_text(json.dumps({"question": "a"}) + "\n\n" + json.dumps({"messages": own}) + "\n")
    engine = Recorder()
    assert answer_file(engine, source, target, system_prompt="be kind") == 2
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert [(row["question"], row["answer"], row["stopped"]) for row in rows] == [("a", "ok", True), ("b", "ok", True)]
    assert engine.seen[0][0]["content"] == "be kind"
    assert engine.seen[1] == own
    with pytest.raises(UserError, match="is not overwritten"):
        answer_file(engine, source, target)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("q.csv", b"a", "questions come from"),
        ("q.jsonl", b'{"question": "a"}\nnonsense', "line 2: needs a JSON object"),
        ("q.jsonl", b"[1]", "line 1: needs a JSON object"),
        ("q.txt", b"\xff\xfe", "is not UTF-8"),
        ("q.txt", None, "cannot be read"),
    ],
)
def test_files_that_are_no_questions(tmp_path, name, content, problem):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=problem):
        answer_file(Recorder(), tmp_path / name, tmp_path / "a.jsonl")


def test_wrong_variants_name_the_way_out(chain):
    with pytest.raises(UserError, match="Did you mean 'merged'"):
        open_engine("merge", chain)
    with pytest.raises(UserError, match="needs lora_adapter"):
        open_engine("adapter", {"base_model": chain["base_model"]})


# What each script must do without. onnxruntime-genai alone is what a device has.
NOT_NEEDED = {
    "adapter": ["phi3_assets", "dagster"],
    "merged": ["phi3_assets", "dagster", "peft"],
    "int4": ["phi3_assets", "dagster", "peft", "torch", "transformers"],
}


# The example of merged is that of adapter without PEFT.
@pytest.mark.parametrize(
    "variant", [pytest.param(name, marks=pytest.mark.slow) if name == "merged" else name for name in NOT_NEEDED]
)
def test_examples_run_from_the_home_as_they_are(made_home, tmp_path, variant):
    for name in NOT_NEEDED[variant]:
        (tmp_path / f"{name}.py").write_text("raise ImportError('this script must do without')")
    done = subprocess.run(
        [sys.executable, f"inferences/{variant}.py", "What does code 7 mean?"],
        cwd=made_home,
        env=clean_env(PYTHONPATH=str(tmp_path)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 1  # random weights may answer with blanks


def test_an_example_takes_a_model_from_elsewhere(chain, home):
    script = [sys.executable, home / "inferences" / "int4.py", "2 + 2", chain["onnx_int4_model"]]
    assert subprocess.run(script, capture_output=True, check=True).stdout.strip()
