"""From a merged model to int4 ONNX."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi3_assets.olive import configs, corpus
from phi3_assets.olive.int4_configs import quantising_passes
from phi3_assets.olive.passes import olive_log, run_pass


def quantise(
    merged: Path, output: Path, work: Path, params: Mapping[str, Any], max_length: int, train_file: Path | None
) -> None:
    """Write the int4 model to `output`; see `quantising_passes`.

    Args:
        merged: The model.
        output: An empty directory.
        work: For intermediate models; emptied by the caller.
        params: Recipe fields of the step.
        max_length: Longest sequence in tokens.
        train_file: The corpus, for "gptq".

    Raises:
        UserError: As `quantising_passes`, or what a pass says.
    """
    provider = configs.PROVIDERS[params["execution_provider"]]
    with olive_log():
        from olive.passes.onnx import model_builder

        # The pass hands the builder the user's Hugging Face cache for its intermediate files.
        scratch = work / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        model_builder.HF_HUB_CACHE = str(scratch)
        corpus.register()
        passes = quantising_passes(merged, params, max_length, train_file)
        model: Any = merged
        for name, config in passes.items():
            target = output if name == list(passes)[-1] else work / name
            given = {key: value for key, value in config.items() if key != "type"}
            model = run_pass(config["type"], given, model, target, provider=provider)
