"""What must be set before torch, transformers, Olive and ONNX Runtime are imported. Nothing heavy is imported here."""

import os

from phi3_assets.core.machine import cores

SETTINGS = {
    # Olive 0.13 logs a heartbeat before it looks at its own switch; only a CI variable stops that one too.
    "OLIVE_DISABLE_TELEMETRY": "1",
    "CI": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Progress goes through StepContext.progress; bars would flood the event log line by line.
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "true",
    # Threads that wait for one another sleep, or they keep the core from the very thread that they wait for where there
    # is other work (`python -m benchmarks contention`). First they look a thousand times, some microseconds: going to
    # sleep at once made small products, such as those of attention in blocks, half as fast on two cores.
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "1000",
    # In bfloat16 on a CPU each shape of a product is compiled, at about 1.5 MB; torch keeps 1024 of them. Rows of many
    # lengths filled that: the default training held 3.3 GB where 1.8 were reckoned. A step needs fewer than 256.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
}


def settings() -> dict[str, str]:
    """All of them, and how many threads reckon: by itself torch asks the host, whatever a container's quota allows."""
    return {**SETTINGS, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(cores())}


def prepare() -> None:
    """Set them in this process, each unless the user has set it. Call it first in every step that imports torch."""
    for name, value in settings().items():
        os.environ.setdefault(name, value)
