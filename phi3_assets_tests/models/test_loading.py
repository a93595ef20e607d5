"""Loading in another type: the same model as transformers loads, and no files in memory beside it."""

import pytest

from phi3_assets.models import environment
from phi3_assets.models.loading import load_as
from phi3_assets.models.random_phi3 import write_random_model

environment.prepare()


@pytest.mark.parametrize("shape", ["phi3-tiny", "phi3-tiny-untied", "phi3.5-small", "phi4-small"])
def test_is_the_model_that_transformers_loads(shape, tmp_path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    write_random_model(shape, 0, tmp_path)
    AutoModelForCausalLM.from_pretrained(tmp_path, dtype="bfloat16").save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1 or shape == "phi3-tiny"
    theirs, ours = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="float32"), load_as(tmp_path, torch.float32)
    ids = torch.arange(5, 60)[None]
    assert torch.equal(ours(ids).logits, theirs(ids).logits)
    assert ours.generation_config.to_dict() == theirs.generation_config.to_dict()
    tied = shape in ("phi3-tiny", "phi4-small")
    assert (ours.get_output_embeddings().weight is ours.get_input_embeddings().weight) == tied


def test_files_are_not_held_beside_the_model(tmp_path) -> None:
    """Mapped, what was read of them counted as half of the model once more."""
    import torch

    from phi3_assets.core import memory

    write_random_model("phi3-mini-1-layer", 0, tmp_path)
    load_as(tmp_path, torch.float32)  # what libraries load first
    memory.forget_peak_memory()
    held = memory.held_bytes()
    model = load_as(tmp_path, torch.float32)
    weights = sum(weight.numel() * weight.itemsize for weight in model.parameters())
    assert (memory.peak_memory_bytes() or weights) - held < 1.2 * weights
