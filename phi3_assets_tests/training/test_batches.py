"""Batches: whatever is left out of the arithmetic, loss and gradients stay those of the plain padded batch."""

import random
from typing import Any

import pytest

from phi3_assets.models import environment
from phi3_assets.training import attention, batches
from phi3_assets.training.batches import Attending, collate, packing_pays

environment.prepare()

IGNORED = -100


def test_layouts_are_chosen_by_cost() -> None:
    """Short rows, with a long common beginning or of many lengths, are packed; long ones would pay in attention."""
    assert packing_pays([60] * 8, prefix=25, hidden_size=576)
    assert not packing_pays([60], prefix=25, hidden_size=576)
    assert not packing_pays([500] * 8, prefix=2, hidden_size=576)
    assert packing_pays([60, 90, 200, 300], prefix=0, hidden_size=576)
    assert not packing_pays([1500] * 7 + [1400], prefix=0, hidden_size=576)


@pytest.mark.parametrize("prefix", [0, 6])
@pytest.mark.parametrize("same_lengths", [False, True])
@pytest.mark.parametrize("layout", ["padded", "packed", "packed in blocks", "packed by positions"])
def test_loss_and_gradients_are_those_of_the_plain_batch(layout, prefix, same_lengths, model, monkeypatch) -> None:
    import torch

    monkeypatch.setattr(batches, "packing_pays", lambda *_: layout != "padded")
    monkeypatch.setattr(attention, "_BLOCK", 8)  # some are of two rows
    name = attention.BLOCKS if layout == "packed in blocks" else "sdpa"
    attention.use(model, name)
    # torch's attention takes what flash attention is given as it does: where positions begin anew, a row does.
    given = attention.FLASH if layout == "packed by positions" else name
    rows = make_rows(same_lengths, prefix)
    batch = collate(rows, 0, Attending(64, torch.float32, given))
    by_positions = layout == "packed by positions"
    packed = not same_lengths if by_positions else layout != "padded"
    assert ("attention_mask" in batch) == (packed and not by_positions)
    assert ("position_ids" in batch) == packed
    assert batch["input_ids"].shape[0] == (1 if packed else len(rows))
    found = gradient_of(model, batch)
    attention.use(model, "sdpa")
    torch.testing.assert_close(found, gradient_of(model, plain_batch(rows)), rtol=1e-4, atol=1e-6)


def test_no_token_sees_another_row(model, monkeypatch) -> None:
    """What the last row's logits are does not depend on the rows in front of it; those after it causality hides."""
    import torch

    monkeypatch.setattr(batches, "packing_pays", lambda *_: True)
    attention.use(model, attention.BLOCKS)
    few, many = make_rows(False, 0), make_rows(False, 0)
    for row in many[:-1]:
        row["input_ids"] = row["input_ids"].flip(0)
    with torch.no_grad():
        one, other = (model(**collate(rows, 0, Attending(64, torch.float32, attention.BLOCKS))) for rows in (few, many))
    learnt = int((few[-1]["labels"] != IGNORED).sum())
    assert one.logits.shape[0] > learnt
    torch.testing.assert_close(one.logits[-learnt:], other.logits[-learnt:])
    assert not torch.allclose(one.logits[:-learnt], other.logits[:-learnt])


@pytest.mark.parametrize(
    ("name", "window", "packed"),
    [
        (attention.BLOCKS, None, True),
        (attention.BLOCKS, 100, True),
        (attention.BLOCKS, 10, False),
        (attention.FLASH, 10, True),
        (attention.FLASH, 0, False),
    ],
)
def test_rows_longer_than_a_layer_sees_are_not_packed(name, window, packed) -> None:
    """A mask of ours would take the place of the layer's own; flash attention has none."""
    import torch

    batch = collate(make_rows(False, 6), 0, Attending(64, torch.float32, name, window))
    assert ("position_ids" in batch) == packed


def test_layers_that_carry_a_state_are_never_packed() -> None:
    from transformers import Phi3Config, Qwen3NextConfig

    assert Attending.of(Phi3Config(sliding_window=2047), "float32", "sdpa").window == 2047
    assert Attending.of(Phi3Config(), "float32", "sdpa").window is None
    assert Attending.of(Qwen3NextConfig(), "float32", "sdpa").window == 0


def test_only_learnt_positions_get_logits(model) -> None:
    import torch

    rows = make_rows(same_lengths=False)
    batch = collate(rows, 0, Attending(64, torch.float32))
    learnt = sum(int((row["labels"] != IGNORED).sum()) for row in rows)
    assert model(**batch).logits.shape[0] == learnt


def test_prefix_ends_before_anything_learnt() -> None:
    """The last token of a shared prefix cannot predict two different next tokens."""
    import torch

    def row(ids: list[int], learnt_from: int) -> dict[str, Any]:
        labels = [IGNORED] * learnt_from + ids[learnt_from:]
        return {"input_ids": torch.tensor(ids), "labels": torch.tensor(labels)}

    trimmed = [batches._trim(row([1, 2, 3, 9, 4], 3)), batches._trim(row([1, 2, 3, 8, 5], 3))]
    assert batches.shared_prefix(trimmed) == 2
    assert batches.shared_prefix([batches._trim(row([1, 2, 3, 9, 4], 1))]) == 0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoModelForCausalLM

    from phi3_assets.models.random_phi3 import write_random_model

    folder = tmp_path_factory.mktemp("model")
    write_random_model("phi3-tiny", 0, folder)
    return AutoModelForCausalLM.from_pretrained(folder, use_cache=False).eval()  # as in training


def make_rows(same_lengths: bool, prefix: int = 6) -> list[dict[str, Any]]:
    import torch

    draw = random.Random(3)
    rows = []
    for _ in range(4):
        prompt = list(range(7, 7 + prefix)) + [
            draw.randrange(20, 500) for _ in range(5 if same_lengths else draw.randint(1, 9))
        ]
        answer = [draw.randrange(20, 500) for _ in range(4 if same_lengths else draw.randint(1, 6))]
        labels = [IGNORED] * len(prompt) + answer + [IGNORED]
        rows.append({"input_ids": torch.tensor([*prompt, *answer, 5]), "labels": torch.tensor(labels)})
    return rows


def plain_batch(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What transformers' own collator makes: everything padded, with an attention mask."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    return {
        "input_ids": pad_sequence([row["input_ids"] for row in rows], batch_first=True, padding_value=0),
        "labels": pad_sequence([row["labels"] for row in rows], batch_first=True, padding_value=IGNORED),
        "attention_mask": pad_sequence([torch.ones_like(row["labels"]) for row in rows], batch_first=True),
    }


def gradient_of(model: Any, batch: dict[str, Any]) -> Any:
    """Loss and the gradient of every weight, as one vector."""
    import torch

    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return torch.cat([loss.detach()[None], *(weight.grad.flatten() for weight in model.parameters())])
