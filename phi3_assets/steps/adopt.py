"""`lora_adapter` without training: an adapter that the user brings, or, with method none, one that changes nothing."""

from pathlib import Path
from typing import Any

from phi3_assets.core.errors import UserError
from phi3_assets.core.files import copy_file, read_json, user_files, write_json
from phi3_assets.core.step import StepContext
from phi3_assets.models import environment
from phi3_assets.models.directory import describe
from phi3_assets.models.four_bit import FourBit
from phi3_assets.models.trust import trusted_adapter_config
from phi3_assets.training import adapter as adapters
from phi3_assets.training.measured import AdapterMetrics

_PREFIX = "base_model.model."  # PEFT's, before the name that a layer has in the base model


def adopt_adapter(ctx: StepContext) -> dict[str, Any]:
    """Take the PEFT adapter in the input "adapter_directory", once it is seen to belong to the base model.

    Returns:
        `AdapterMetrics` as JSON; method is "given".

    Raises:
        UserError: No PEFT adapter in safetensors, one that can run code, is of another base model or changes nothing.
    """
    environment.prepare()
    given = ctx.inputs["adapter_directory"]
    config = _check_directory(given)
    _check_fits(given, ctx.inputs["base_model"])
    trusted = ctx.work / "trusted"
    trusted.mkdir(exist_ok=True)
    write_json(trusted / adapters.CONFIG_FILE, config)
    copy_file(given / adapters.WEIGHTS_FILE, trusted / adapters.WEIGHTS_FILE)
    adapters.publish_adapter(trusted, ctx.output)
    if (trained_on := FourBit.read(given)) is not None:
        trained_on.write(ctx.output)
    trainable = adapters.count_adapter_parameters(ctx.output)
    return AdapterMetrics(
        method="given",
        trainable_parameters=trainable,
        total_parameters=describe(ctx.inputs["base_model"]).parameters + trainable,
        **adapters.adapter_norms(ctx.output),
    ).to_dict()


def inert_adapter(ctx: StepContext) -> dict[str, Any]:
    """Write a valid adapter of rank 1 that is zero throughout: base + adapter is the base model.

    So the graph keeps its shape, and the base model can be quantised and scored by itself.

    Returns:
        `AdapterMetrics` as JSON; method is "none" and the norms are 0.
    """
    environment.prepare()
    import torch
    from peft import LoraConfig
    from safetensors.torch import save_file

    base, modules = ctx.inputs["base_model"], ctx.params["target_modules"]
    adapters.check_target_modules(base, modules)
    layers = {name: shape for name, shape in _linear_shapes(base).items() if name.rpartition(".")[2] in modules}
    config = LoraConfig(r=1, lora_alpha=1, target_modules=sorted(modules), task_type="CAUSAL_LM", inference_mode=True)
    config.save_pretrained(str(ctx.work))
    weights = {}
    for name, (outputs, inputs) in layers.items():
        weights[f"{_PREFIX}{name}.lora_A.weight"] = torch.zeros(1, inputs)
        weights[f"{_PREFIX}{name}.lora_B.weight"] = torch.zeros(outputs, 1)
    save_file(weights, ctx.work / adapters.WEIGHTS_FILE, metadata={"format": "pt"})
    adapters.publish_adapter(ctx.work, ctx.output)
    return AdapterMetrics(
        method="none",
        trainable_parameters=0,
        total_parameters=describe(base).parameters,
        b_norm_min=0.0,
        b_norm_max=0.0,
        b_matrices=len(layers),
    ).to_dict()


def changes_nothing(adapter: Path) -> bool:
    """Whether this is the adapter that method none calls for; training starts from A matrices that are not zero."""
    from safetensors import safe_open

    with safe_open(adapter / adapters.WEIGHTS_FILE, framework="np") as weights:
        return not any(weights.get_tensor(name).any() for name in weights.keys())  # noqa: SIM118 (not a mapping)


def _check_directory(directory: Path) -> dict[str, Any]:
    names = set(user_files(directory, "Adapter directory"))
    if adapters.CONFIG_FILE not in names:
        raise UserError(
            f"adapter_path: {directory} has no {adapters.CONFIG_FILE}, so it is no PEFT adapter. Name the folder that "
            "model.save_pretrained() of a PEFT model wrote."
        )
    if adapters.WEIGHTS_FILE not in names:
        pickled = " adapter_model.bin can run code when opened and is refused;" if "adapter_model.bin" in names else ""
        raise UserError(
            f"adapter_path: {directory} has no {adapters.WEIGHTS_FILE}.{pickled} save it with PEFT of today, which "
            "writes safetensors."
        )
    path = directory / adapters.CONFIG_FILE
    try:
        content = read_json(path)
    except ValueError as error:
        raise UserError(f"adapter_path: {path} is no JSON that can be read: {error}.") from None
    kind = content.get("peft_type") if isinstance(content, dict) else None
    if kind != "LORA":
        raise UserError(
            f"adapter_path: {directory} holds an adapter of type {kind}; only LoRA and DoRA (LORA) can be merged here."
        )
    config = trusted_adapter_config(content, path)
    if not isinstance(config.get("target_modules"), str | list):
        raise UserError(f"adapter_path: {path} names no target_modules. Save the adapter with PEFT of today.")
    return config


def _check_fits(adapter: Path, base: Path) -> None:
    """PEFT loads an adapter of another model with a warning, and the result is the base model."""
    from safetensors import safe_open

    layers = _linear_shapes(base)
    with safe_open(adapter / adapters.WEIGHTS_FILE, framework="np") as weights:
        for name in weights.keys():  # noqa: SIM118 (not a mapping)
            layer, matrix, _ = name.removeprefix(_PREFIX).rpartition(".lora_")
            if not matrix:
                continue
            if layer not in layers:
                raise UserError(
                    f"adapter_path: the adapter changes {layer}, which the base model does not have. It was trained "
                    "on another model, or on one in another layout (Phi-3 fuses q, k, v into qkv_proj); name that "
                    "one as base_model."
                )
            outputs, inputs = layers[layer]
            shape = weights.get_slice(name).get_shape()
            if ("lora_A" in name and shape[1] != inputs) or ("lora_B" in name and shape[0] != outputs):
                raise UserError(
                    f"adapter_path: {name} has the shape {shape}, but the base model's {layer} takes {inputs} numbers "
                    f"and gives {outputs}. The adapter was trained on another model; name that one as base_model."
                )


def _linear_shapes(model: Path) -> dict[str, tuple[int, int]]:
    """Outputs and inputs of each layer with a weight matrix, by full name."""
    from safetensors import safe_open

    found = {}
    for file in sorted(model.glob("*.safetensors")):
        with safe_open(file, framework="np") as weights:
            for name in weights.keys():  # noqa: SIM118 (not a mapping)
                shape = weights.get_slice(name).get_shape()
                if len(shape) == 2:
                    found[name.removesuffix(".weight")] = (shape[0], shape[1])
    return found
