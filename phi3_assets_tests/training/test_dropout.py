"""Dropout of an adapter: as torch's, from other draws."""

import pytest

from phi3_assets.models import environment

environment.prepare()


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_drops_as_often_and_scales_what_is_kept(probability) -> None:
    import torch

    from phi3_assets.training.dropout import sparing_dropout

    torch.manual_seed(0)
    values = torch.ones(1001, 1001, requires_grad=True)
    result = sparing_dropout()(probability)(values)
    assert float((result == 0).double().mean()) == pytest.approx(probability, abs=0.002)
    assert float(result.detach().double().mean()) == pytest.approx(1, abs=0.004)
    torch.testing.assert_close(result.detach().unique(), torch.tensor([0, 1 / (1 - probability)]), rtol=1e-4, atol=0)
    result.sum().backward()
    torch.testing.assert_close(values.grad, result.detach())


def test_no_pattern_among_neighbours() -> None:
    """Four neighbours come of one draw, and are dropped independently all the same."""
    import torch

    from phi3_assets.training.dropout import sparing_dropout

    torch.manual_seed(0)
    dropped = (sparing_dropout()(0.5)(torch.ones(200_000, 4)) == 0).double()
    assert float(torch.corrcoef(dropped.T).fill_diagonal_(0).abs().max()) < 0.01


def test_seed_decides_and_evaluation_drops_nothing() -> None:
    import torch

    from phi3_assets.training.dropout import sparing_dropout

    dropout, values = sparing_dropout()(0.1), torch.randn(3, 5, 7)
    results = []
    for _ in range(2):
        torch.manual_seed(1)
        results.append(dropout(values))
    assert torch.equal(*results)
    assert dropout.eval()(values) is values


def test_takes_the_place_of_torch_s_in_an_adapter(tmp_path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from phi3_assets.models.random_phi3 import write_random_model
    from phi3_assets.training.dropout import draw_less, sparing_dropout

    write_random_model("phi3-tiny", 0, tmp_path)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tmp_path),
        LoraConfig(r=4, lora_dropout=0.1, target_modules=["qkv_proj", "o_proj"]),
    )
    layers = model.get_base_model().config.num_hidden_layers
    draw_less(model)
    assert sum(isinstance(module, sparing_dropout()) for module in model.modules()) == 2 * layers
