"""Running a model folder in ONNX Runtime GenAI, greedily."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from phi3_assets.core.machine import cores

# The folder's own genai_config.json asks for sampling; a score is greedy.
GREEDY = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "min_length": 0}
# Threads that look for work without end keep the core from the one that they wait for, if there is other work on the
# machine: beside two busy processes on two cores a model took 3.3 times as long as alone, so it is 2.5 times. Without
# looking at all it takes half as long again where nothing is beside it.
SPIN_US = 20


def load_model(directory: Path) -> Any:
    """Open a GenAI model folder as `onnxruntime_genai.Model`, to run on all cores that this process may use.

    ONNX Runtime by itself asks the processor how many cores there are: in a virtual machine that may be half of them,
    in a container it is all of the host's. What the folder's own configuration says of threads counts instead.
    """
    import onnxruntime_genai

    config = onnxruntime_genai.Config(str(directory))
    threads = {"intra_op_num_threads": cores(), "session.intra_op.spin_duration_us": str(SPIN_US)}
    said = _session_options(directory)
    options = {name: value for name, value in threads.items() if name not in said}
    config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
    return onnxruntime_genai.Model(config)


def for_gpu(directory: Path) -> bool:
    """Whether the folder is for a GPU."""
    return "cuda" in {name for one in _session_options(directory).get("provider_options", []) for name in one}


def can_run(directory: Path) -> bool:
    """Whether this machine has what the folder is for: a model for a GPU needs one."""
    import onnxruntime_genai

    return not for_gpu(directory) or onnxruntime_genai.is_cuda_available()


def _session_options(directory: Path) -> dict[str, Any]:
    config = json.loads((directory / "genai_config.json").read_text(encoding="utf-8"))
    options: dict[str, Any] = config["model"]["decoder"].get("session_options", {})
    return options


def new_generator(model: Any, max_length: int, **options: Any) -> Any:
    """A greedy generator for one sequence.

    Args:
        model: From `load_model`.
        max_length: Prompt and answer together, in tokens. The cache is allocated at this length, so it is given
            exactly (onnxruntime-genai issue 2239: ten times slower at the context length).
        **options: Further search options.
    """
    import onnxruntime_genai

    params = onnxruntime_genai.GeneratorParams(model)
    params.set_search_options(**{**GREEDY, "max_length": max_length, **options})
    return onnxruntime_genai.Generator(model, params)


def new_tokens(generator: Any) -> Iterator[int]:
    """What the generator goes on with after the tokens appended to it, up to and with an end token."""
    while not generator.is_done():
        generator.generate_next_token()
        yield int(generator.get_next_tokens()[0])


def greedy(model: Any, prompt_ids: Sequence[int], max_new_tokens: int, **options: Any) -> Iterator[int]:
    """The greedy answer to one prompt, token by token, up to and with its end token.

    Args:
        model: From `load_model`.
        prompt_ids: The prompt.
        max_new_tokens: Longest answer.
        **options: Further search options.
    """
    generator = new_generator(model, len(prompt_ids) + max_new_tokens, **options)
    generator.append_tokens(list(prompt_ids))
    yield from new_tokens(generator)
