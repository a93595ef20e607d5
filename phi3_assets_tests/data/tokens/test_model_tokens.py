"""The fast way to find answers agrees with the tokenizer's own offsets, and steps aside where it cannot work."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from phi3_assets.data.tokens import model_tokens as tokens
from phi3_assets.data.tokens.chat_template import load_chat_template
from phi3_assets.data.tokens.model_tokens import ModelTokens, load_model_tokens, tokenise
from phi3_assets.data.tokens.rendering import Renderer, chat_renderer
from phi3_assets_tests.data.running import PHI3, write_model
from phi3_assets_tests.data.tokens.test_rendering import conversations

Case = tuple[ModelTokens, Renderer]


@pytest.fixture(scope="module", params=["chatml", "phi3"])
def case(request, tmp_path_factory) -> Case:
    folder = tmp_path_factory.mktemp(request.param)
    path: Path = write_model(folder) if request.param == "chatml" else write_model(folder, PHI3, end="<|end|>")
    return load_model_tokens(path), chat_renderer(load_chat_template(path), "<|im_end|>")


@settings(max_examples=80, deadline=None, derandomize=True)
@given(messages=conversations)
def test_anchors_and_offsets_agree(case: Case, messages) -> None:
    model, renderer = case
    skeleton = renderer.skeleton(tuple(role for role, _ in messages))
    assert skeleton is not None
    anchor = tokens._anchor(model, skeleton)
    assert anchor is not None
    rows = [renderer.render(messages)] * 2
    head = tokens._head(model, [skeleton.between[0]])
    fast, sure = tokens._by_anchor(model, rows, anchor, head), tokens._by_offsets(model, rows)
    assert fast is not None
    for name in ("ids", "offsets", "starts", "ends", "turns", "ended"):
        assert getattr(fast, name).tolist() == getattr(sure, name).tolist(), name
    chosen = tokenise(model, rows, [skeleton] * 2)
    assert chosen.learnt().tolist() == sure.learnt().tolist()
    assert len(np.unique(chosen.prompt_hashes(), axis=0)) == 1


def test_a_header_that_melts_into_the_answer_is_noticed(case: Case) -> None:
    """Answers are stripped, so this cannot come from data; a tokenizer that merges across the header could do it."""
    model, renderer = case
    anchor = tokens._anchor(model, renderer.skeleton(("user", "assistant")))
    rows = [renderer.render([("user", "a"), ("assistant", "b")])]
    cut = rows[0]._replace(text=rows[0].text.replace("assistant", "assist"))
    assert tokens._by_anchor(model, [cut], anchor, "") is None


def test_what_all_rows_begin_with_is_encoded_once(case: Case) -> None:
    model, renderer = case
    messages = [("user", "Say a b"), ("assistant", "a b")]
    skeleton = renderer.skeleton(("user", "assistant"))
    head = tokens._head(model, [skeleton.between[0]])
    assert head == ("<|im_start|>system\nYou are helpful.<|im_end|>\n" if "im_start" in skeleton.between[0] else "")
    assert tokens._head(model, [skeleton.between[0], "other"]) == ""
    rows = [renderer.render(messages)] * 3
    sure = tokens._by_offsets(model, rows)
    ids, offsets = tokens._encode(model, rows, head)
    assert (ids.tolist(), offsets.tolist()) == (sure.ids.tolist(), sure.offsets.tolist())
    # A tokenizer for which the cut makes a difference is noticed; here, a cut inside a word.
    ids, offsets = tokens._encode(model, rows, rows[0].text[: rows[0].text.index("Say") + 2])
    assert (ids.tolist(), offsets.tolist()) == (sure.ids.tolist(), sure.offsets.tolist())


def test_equal_prompts_and_only_they_have_equal_hashes(case: Case) -> None:
    model, renderer = case
    rows = [
        renderer.render([("user", question), ("assistant", answer)])
        for question, answer in (("Say a b", "x"), ("Say a b", "yy"), ("Say b a", "x"), ("Say a", "b x"))
    ]
    hashes = tokenise(model, rows, [None] * len(rows)).prompt_hashes()[:, 0]
    assert hashes[0] == hashes[1]
    assert len(np.unique(hashes)) == 3
