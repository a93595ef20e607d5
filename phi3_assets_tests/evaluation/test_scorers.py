"""The scorers against the plainest reference there is: one prompt at a time through `transformers`."""

import math
import os
from dataclasses import dataclass, replace
from itertools import islice

import pytest

from phi3_assets.core.memory import forget_peak_memory, peak_memory_bytes
from phi3_assets.evaluation import batching, genai_scorer, torch_scorer
from phi3_assets.evaluation.items import load_items
from phi3_assets.evaluation.speed import measure_apart
from phi3_assets.models import genai
from phi3_assets.models.end_tokens import genai_end_token_ids
from phi3_assets_tests.evaluation.tiny import make_base, write_corpus

pytest_plugins = ["phi3_assets_tests.evaluation.tiny"]


def reference_scores(model, items, max_new_tokens):
    """Batch 1, no cache shared, `generate`."""
    import torch

    found = []
    for item in items:
        ids = torch.tensor([item.prompt_ids + item.answer_ids])
        with torch.inference_mode():
            logits = model(ids).logits[0, len(item.prompt_ids) - 1 : -1]
            nll = torch.nn.functional.cross_entropy(logits, torch.tensor(item.answer_ids)).item()
            other = model(torch.tensor([item.prompt_ids + item.other_ids])).logits[0, len(item.prompt_ids) - 1 : -1]
            other_nll = torch.nn.functional.cross_entropy(other, torch.tensor(item.other_ids)).item()
            prompt = torch.tensor([item.prompt_ids])
            output = model.generate(
                # without a mask `generate` takes the end token that closes the user's turn for padding
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=False,
                max_new_tokens=max_new_tokens,
            )[0, len(item.prompt_ids) :].tolist()
        stopped = output[-1] == model.config.eos_token_id
        found.append((nll, other_nll, tuple(output[:-1] if stopped else output), stopped))
    return found


def check_against_reference(model, items, max_new_tokens=24):
    scores = torch_scorer.score(model, items, [model.config.eos_token_id], max_new_tokens)
    for score, (nll, other_nll, tokens, stopped) in zip(
        scores, reference_scores(model, items, max_new_tokens), strict=True
    ):
        assert score.nll == pytest.approx(nll, abs=2e-5)
        assert score.other_nll == pytest.approx(other_nll, abs=2e-5)
        assert score.generated_ids == tokens
        assert score.stopped == stopped
    return scores


@pytest.mark.parametrize("variant", ["base", "adapter", "merged"])
def test_torch_batches_equal_batch_one(chain, variant):
    items = load_items(chain["formatted_corpus"] / "test.jsonl")
    model = torch_scorer.load_model(
        chain["merged_model" if variant == "merged" else "base_model"],
        chain["lora_adapter"] if variant == "adapter" else None,
    )
    check_against_reference(model, items)


def test_rows_that_stop_leave_the_batch_and_others_go_on(chain):
    """Makes the end token likely, so that rows end at different lengths."""
    items = load_items(chain["formatted_corpus"] / "test.jsonl")
    model = torch_scorer.load_model(chain["merged_model"])
    # Any token that many answers reach somewhere on their way serves as the end token.
    frequent = [token for score in torch_scorer.score(model, items, {1}, 24) for token in set(score.generated_ids)]
    end = max(set(frequent), key=frequent.count)
    model.config.eos_token_id = model.generation_config.eos_token_id = end
    scores = check_against_reference(model, items)
    lengths = {len(score.generated_ids) for score in scores}
    assert any(score.stopped for score in scores)
    assert len(lengths) > 1


def test_sliding_window_layers_score_the_same(tmp_path):
    """Phi-3-mini-4k attends to a window; a cache that forgets cannot be cropped."""
    base = make_base(tmp_path / "base", sliding_window=8)
    items = load_items(write_corpus(tmp_path / "corpus", base) / "test.jsonl")
    check_against_reference(torch_scorer.load_model(base), items)


@pytest.mark.parametrize("window", [None, 8])
def test_answers_that_follow_the_reference_a_while_are_those_of_generate(tmp_path, window):
    """References that the model says itself: as far as to any place, to their end, and beyond."""
    base = make_base(tmp_path / "base", sliding_window=window)
    plain = load_items(write_corpus(tmp_path / "corpus", base) / "test.jsonl")
    model = torch_scorer.load_model(base)
    said = [score.generated_ids for score in torch_scorer.score(model, plain, [], 24)]
    items = [
        replace(item, answer_ids=(*own[:length], *rest))
        for item, own in zip(plain, said, strict=True)
        for length, rest in [(0, (7,)), (1, (7, 8, 9)), (5, (1,)), (11, (7,) * 30), (24, (1,)), (24, ())]
    ]
    check_against_reference(model, items)
    ends_early = [replace(item, answer_ids=own) for item, own in zip(plain, said, strict=True)]
    model.config.eos_token_id = model.generation_config.eos_token_id = said[0][9]  # stands within the reference
    check_against_reference(model, ends_early)


def test_an_answer_that_is_the_reference_is_not_written_again(chain, monkeypatch):
    items = load_items(chain["formatted_corpus"] / "test.jsonl")
    model = torch_scorer.load_model(chain["merged_model"])
    said = torch_scorer.score(model, items, [1], 24)
    asked = [replace(item, answer_ids=score.generated_ids) for item, score in zip(items, said, strict=True)]
    passes = []
    monkeypatch.setattr(
        model.model, "forward", lambda real=model.model.forward, **given: passes.append(1) or real(**given)
    )
    again = torch_scorer.score(model, asked, [1], 24)
    assert [score.generated_ids for score in again] == [score.generated_ids for score in said]
    assert len(passes) == 3  # prompts, answers to other questions, answers


def test_small_batches_score_the_same(chain, monkeypatch):
    items = load_items(chain["formatted_corpus"] / "test.jsonl")
    model = torch_scorer.load_model(chain["base_model"])
    whole = torch_scorer.score(model, items, {1}, 8)
    monkeypatch.setattr(batching, "MAX_BATCH_TOKENS", 30)
    parts = torch_scorer.score(model, items, {1}, 8)
    assert len(batching.item_batches(items, 8, token_bytes=1)) > 2
    assert [score.generated_ids for score in parts] == [score.generated_ids for score in whole]
    assert [score.nll for score in parts] == pytest.approx([score.nll for score in whole], abs=1e-5)


@dataclass(frozen=True)
class _Sizes:
    """An item as far as batches look at it."""

    prompt_ids: range
    answer_ids: range
    other_ids: range = range(0)


def test_batches_count_answers_and_hold_no_more_keys_and_values_than_allowed(monkeypatch):
    """Long answers were not counted: a batch of short prompts outgrew the memory while it was answered."""
    monkeypatch.setattr(batching, "MAX_BATCH_TOKENS", 40)
    monkeypatch.setattr(batching, "MAX_CACHE_BYTES", 3000)
    short = [_Sizes(range(10), range(1))] * 4
    assert batching.item_batches(short, 0, token_bytes=1) == [[0, 1, 2], [3]]  # 11 tokens each
    assert batching.item_batches(short, 10, token_bytes=1) == [[0, 1], [2, 3]]
    assert batching.item_batches([*short[:2], _Sizes(range(10), range(20))], 0, token_bytes=1) == [[2], [0, 1]]
    assert batching.item_batches(short, 0, token_bytes=100) == [[0, 1], [2, 3]]  # 30 tokens of keys and values
    assert batching.item_batches([_Sizes(range(50), range(9)), *short[:1]], 0, token_bytes=1) == [[0], [1]]


def test_genai_float_export_equals_torch(chain):
    items = load_items(chain["formatted_corpus"] / "test.jsonl")
    expected = torch_scorer.score(torch_scorer.load_model(chain["merged_model"]), items, {1}, 16)
    folder = chain["onnx_fp32_model"]
    found = genai_scorer.score(genai.load_model(folder), items, genai_end_token_ids(folder), 16)
    assert [score.nll for score in found] == pytest.approx([score.nll for score in expected], abs=1e-3)
    assert [score.other_nll for score in found] == pytest.approx([score.other_nll for score in expected], abs=1e-3)
    assert [score.generated_ids for score in found] == [score.generated_ids for score in expected]
    assert [score.stopped for score in found] == [score.stopped for score in expected]


def test_genai_int4_is_close_to_torch(chain):
    items = load_items(chain["formatted_corpus"] / "test.jsonl")
    expected = torch_scorer.score(torch_scorer.load_model(chain["merged_model"]), items, {1}, 2)
    folder = chain["onnx_int4_model"]
    found = genai_scorer.score(genai.load_model(folder), items, genai_end_token_ids(folder), 2)
    mean = sum(score.nll for score in expected) / len(items)
    assert sum(score.nll for score in found) / len(items) == pytest.approx(mean, rel=0.15)


def test_likelihoods_and_answers_of_int4_are_numbers_of_one_computation(chain):
    """An answer was read in one pass and written token by token: two models, of which one was judged by the other.

    Reference: a bare loop that writes as a device does, and notes how likely each token was when it was written.
    """
    model = genai.load_model(chain["onnx_int4_model"])
    asked, answers, written, in_one_pass = [], [], [], []
    for item in load_items(chain["formatted_corpus"] / "test.jsonl"):
        generator = genai.new_generator(model, len(item.prompt_ids) + 16)
        generator.append_tokens(list(item.prompt_ids))
        tokens, nats = [], []
        for token in islice(genai.new_tokens(generator), 16):
            nats.append(genai_scorer.mean_nll(generator.get_output("logits")[0][-1:], [token]))
            tokens.append(token)
        generator.rewind_to(0)
        generator.append_tokens([*item.prompt_ids, *tokens[:-1]])
        in_one_pass.append(genai_scorer.mean_nll(generator.get_output("logits")[0][-len(tokens) :], tokens))
        asked.append(replace(item, answer_ids=tuple(tokens)))
        answers.append(tuple(tokens))
        written.append(math.fsum(nats) / len(nats))
    found = genai_scorer.score(model, asked, {-1}, 16)
    assert [score.generated_ids for score in found] == answers
    assert [score.nll for score in found] == written
    assert in_one_pass != written  # what makes this test able to fail


def test_int4_runs_on_as_many_cores_as_there_are_and_says_the_same(chain, monkeypatch):
    """ONNX Runtime found one core where the system has two, so that every answer took half again as long."""
    items, ends = load_items(chain["formatted_corpus"] / "test.jsonl"), genai_end_token_ids(chain["onnx_int4_model"])
    found, threads = [], []
    genai.load_model(chain["onnx_int4_model"])  # what the first one of a process starts beside does not count
    for cores in (1, 4):
        monkeypatch.setattr(genai, "cores", lambda cores=cores: cores)
        before = len(os.listdir("/proc/self/task"))
        model = genai.load_model(chain["onnx_int4_model"])
        threads.append(len(os.listdir("/proc/self/task")) - before)
        found.append(genai_scorer.score(model, items, ends, 8))
        del model
    assert threads[1] - threads[0] == 3
    assert found[0] == found[1]


def test_speed_and_memory_of_both_runtimes(chain):
    """int4 is measured without torch and takes a fraction of the memory."""
    prompt = load_items(chain["formatted_corpus"] / "test.jsonl")[0].prompt_ids
    forget_peak_memory()
    merged = torch_scorer.speed(torch_scorer.load_model(chain["merged_model"]), prompt)
    int4 = measure_apart(chain["onnx_int4_model"], prompt)
    for speed in (merged, int4):
        assert speed.tokens_per_s > 1
        assert 0 < speed.time_to_first_token_s < 60
        prompt_s = len(prompt) / speed.prefill_tokens_per_s
        assert prompt_s == pytest.approx(speed.time_to_first_token_s, rel=0.1, abs=1e-3)
    assert 30e6 < int4.peak_memory_bytes < merged.peak_memory_bytes / 2


def test_peak_memory_can_be_forgotten():
    forget_peak_memory()
    before = peak_memory_bytes()
    block = bytearray(300_000_000)
    assert peak_memory_bytes() - before > 250e6
    del block
    forget_peak_memory()
    assert abs(peak_memory_bytes() - before) < 100e6


def test_a_failed_measurement_says_why(tmp_path):
    with pytest.raises(RuntimeError, match=r"(?s)speed of int4 failed .*genai_config"):
        measure_apart(tmp_path, [1, 2])
