"""Runs one Olive pass, strictly.

Olive's own engine (`olive run`) swallows most exceptions, ignores keys it does not know, and caches on paths instead
of content. Here a pass is built and run directly, so none of that applies: its exceptions surface, an unknown key is
an error, and a pass that leaves no model fails with what Olive logged about it.
"""

import dataclasses
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import TextIOBase
from pathlib import Path
from typing import Any

from phi3_assets.core.errors import UserError, nearest
from phi3_assets.models import environment

# How Olive says that it will not do what it was told; with these it goes on regardless.
_IGNORED = ("Ignoring them", "Ignoring.", "is not a field of", "is not allowed", "Setting gradient_checkpoing to False")


class _Records(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelno, record.getMessage()))

    def reason(self) -> str:
        """The last warnings, else the last line; for errors."""
        warnings = [text for level, text in self.lines if level >= logging.WARNING]
        return " ".join(warnings[-3:] or [text for _, text in self.lines[-1:]]) or "it gave no reason"


class _Printed(TextIOBase):
    """In the place of stdout: hands on whole lines."""

    def __init__(self, printed: Callable[[str], None]) -> None:
        self._printed = printed
        self._begun = ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._printed(line)
        return len(text)


@contextmanager
def olive_log() -> Iterator[_Records]:
    """Import Olive and collect its log; lines also go to the root logger, and no longer to stdout.

    `import olive` puts a handler on stdout and cuts propagation, so nobody else would see them.
    """
    environment.prepare()
    _hush()
    import olive  # noqa: F401  (configures its logger when imported)

    logger = logging.getLogger("olive")
    logger.handlers = [handler for handler in logger.handlers if type(handler) is not logging.StreamHandler]
    logger.propagate = True
    records = _Records()
    logger.addHandler(records)
    try:
        yield records
    finally:
        logger.removeHandler(records)


def _hush() -> None:
    """Keep two libraries under Olive from flooding the log."""
    root = logging.getLogger()
    if not root.handlers and logging.lastResort:
        # onnxruntime's quantiser calls logging.basicConfig(level=INFO) when imported, which makes every library of
        # the process talk, unless the root logger has a handler. This one is what Python uses without any.
        root.addHandler(logging.lastResort)
    # Two lines per node of the graph.
    logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer").setLevel(logging.WARNING)
    # Says on every import of PEFT that an optional kernel is not installed.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def run_pass(
    olive_pass: Any,
    config: Mapping[str, Any],
    model: Any,
    output: Path,
    *,
    adapter: Path | None = None,
    provider: str = "CPUExecutionProvider",
    printed: Callable[[str], None] = lambda line: None,
) -> Any:
    """Run one Olive pass.

    Args:
        olive_pass: A pass of Olive by name, such as "MergeAdapterWeights", or a class derived from one.
        config: The pass's parameters. Each key must be one of the pass's own; so must those in `training_args` be.
        model: Directory of a Hugging Face model, or what another pass returned.
        output: Directory the pass writes to.
        adapter: Directory of a PEFT adapter that belongs to the input model.
        provider: ONNX Runtime execution provider the result is meant for.
        printed: Is told each line that the pass prints.

    Returns:
        Olive's handler of the output model.

    Raises:
        UserError: A key Olive does not know or drops, a configuration it rejects, or a pass that left no model.
        Exception: Whatever the pass raises.
    """
    with olive_log() as log:
        from olive.hardware.accelerator import AcceleratorSpec, Device
        from olive.model import HfModelHandler
        from olive.package_config import OlivePackageConfig
        from olive.passes.olive_pass import create_pass_from_dict

        if isinstance(olive_pass, str):
            olive_pass = OlivePackageConfig.load_default_config().import_pass_module(olive_pass)
        name = olive_pass.__name__
        device = Device.GPU if provider == "CUDAExecutionProvider" else Device.CPU
        accelerator = AcceleratorSpec(accelerator_type=device, execution_provider=provider)
        _refuse_unknown_keys(name, config, list(olive_pass.default_config(accelerator)))
        built = create_pass_from_dict(olive_pass, dict(config), disable_search=True, accelerator_spec=accelerator)
        _refuse_ignored(name, log)
        if not olive_pass.validate_config(built.config, accelerator):
            raise UserError(f"Olive's pass {name} rejects its configuration: {log.reason()}")
        if isinstance(model, Path):
            model = HfModelHandler(model_path=str(model), adapter_path=str(adapter) if adapter else None)
        # ModelBuilder prints a line per layer, with paths, and Olive 0.13 uses names that transformers has deprecated.
        with redirect_stdout(_Printed(printed)), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            result = built.run(model, str(output))
        _refuse_ignored(name, log)
        if result is None or not result.model_path or not Path(result.model_path).exists():
            raise UserError(f"Olive's pass {name} ended without a model: {log.reason()}")
        return result


def _refuse_unknown_keys(name: str, config: Mapping[str, Any], known: list[str]) -> None:
    """Olive would warn "Keys {...} are not part of ..." and train with its defaults instead."""
    _refuse(f"Olive's pass {name}", set(config), known)
    if training_args := config.get("training_args"):
        from olive.passes.pytorch.lora import HFTrainingArguments
        from transformers import TrainingArguments

        fields = [field.name for field in dataclasses.fields(TrainingArguments) if field.init]
        _refuse(f"training_args of {name}", set(training_args), [*HFTrainingArguments.model_fields, *fields])
        _refuse(f"training_args.extra_args of {name}", set(training_args.get("extra_args") or {}), fields)


def _refuse(owner: str, keys: set[str], known: list[str]) -> None:
    if unknown := sorted(keys - set(known)):
        raise UserError(f"{owner} knows no key {unknown[0]!r}.{nearest(unknown[0], known)}")


def _refuse_ignored(name: str, log: _Records) -> None:
    for _, text in log.lines:
        if any(phrase in text for phrase in _IGNORED):
            raise UserError(f"Olive's pass {name} would not do what it was told: {text}")
