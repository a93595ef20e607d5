"""Batches: whatever is left out of the arithmetic, loss and gradients stay those of the plain padded batch."""

import random
from typing import Any

import pytest

from phi3_assets.models import environment
from phi3_assets.training import batches

environment.prepare()

IGNORED = -100


def test_layouts_are_chosen_by_cost() -> None:
    """Short rows with a long common beginning share it; long rows would pay for it in attention."""
    assert batches.shared_prefix_pays([60] * 8, prefix=25, hidden_size=576)
    assert not batches.shared_prefix_pays([60], prefix=25, hidden_size=576)
    assert not batches.shared_prefix_pays([500] * 8, prefix=2, hidden_size=576)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("same_lengths", [False, True])
def test_loss_and_gradients_are_those_of_the_plain_batch(shared, same_lengths, model, monkeypatch) -> None:
    import torch

    monkeypatch.setattr(batches, "shared_prefix_pays", lambda *_: shared)
    rows = make_rows(same_lengths)
    batch = batches.collate(rows, pad_token_id=0, hidden_size=64, dtype=torch.float32)
    assert ("attention_mask" in batch) == shared
    assert batch["input_ids"].shape[0] == (1 if shared else len(rows))
    torch.testing.assert_close(gradient_of(model, batch), gradient_of(model, plain_batch(rows)), rtol=1e-4, atol=1e-6)


def test_only_learnt_positions_get_logits(model) -> None:
    import torch

    rows = make_rows(same_lengths=False)
    batch = batches.collate(rows, pad_token_id=0, hidden_size=64, dtype=torch.float32)
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
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def make_rows(same_lengths: bool) -> list[dict[str, Any]]:
    import torch

    draw = random.Random(3)
    rows = []
    for _ in range(4):
        prompt = [7, 8, 9, 10, 11, 12] + [
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
