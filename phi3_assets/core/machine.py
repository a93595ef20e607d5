"""What computes here. Two of a kind give equal digits, another kind other last digits."""

import os
import platform
import sys
from pathlib import Path

CPUS = Path("/proc/cpuinfo")


def devices() -> dict[str, str]:
    """The processors by model.

    Returns:
        cpu, and gpu if this process has torch imported and there is one.
    """
    torch = sys.modules.get("torch")
    gpu = {"gpu": torch.cuda.get_device_name()} if torch is not None and torch.cuda.is_available() else {}
    return {"cpu": _cpu_model(), **gpu}


def machine() -> dict[str, str]:
    """All of the hardware that scores depend on: the processors, and how many cores share the arithmetic."""
    return {
        **devices(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
    }


def _cpu_model() -> str:
    try:
        lines = CPUS.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())
