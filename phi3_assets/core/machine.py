"""What computes here. Two of a kind give equal digits, another kind other last digits."""

import math
import os
import platform
import sys
from pathlib import Path

from phi3_assets.core.cgroups import groups

CPUS = Path("/proc/cpuinfo")
TOPOLOGY = Path("/sys/devices/system/cpu")


def devices() -> dict[str, str]:
    """The processors by model.

    Returns:
        cpu, and gpu if this process has torch imported and there is one.
    """
    torch = sys.modules.get("torch")
    gpu = {"gpu": torch.cuda.get_device_name()} if torch is not None and torch.cuda.is_available() else {}
    return {"cpu": _cpu_model(), **gpu}


def device_name(*, on_gpu: bool) -> str:
    """The processor by model, or the GPU."""
    return devices().get("gpu", "a GPU") if on_gpu else _cpu_model()


def machine() -> dict[str, str]:
    """All of the hardware that scores depend on: the processors, and how many cores share the arithmetic."""
    return {**devices(), "cores": str(cores())}


def cores() -> int:
    """How many cores this process may use: as the system counts them, within its affinity and its container's quota.

    Two threads of one core count once.
    """
    if not hasattr(os, "sched_getaffinity"):  # not Linux
        return os.cpu_count() or 1
    siblings = {_text(TOPOLOGY / f"cpu{cpu}/topology/thread_siblings_list") or cpu for cpu in os.sched_getaffinity(0)}
    return min([len(siblings), *(max(1, math.ceil(quota)) for quota in _quotas())])


def multiplies_bfloat16() -> bool:
    """Whether this machine's processors multiply bfloat16 themselves; others emulate it, many times slower."""
    lines = _text(CPUS).splitlines()
    flags = next((line.split() for line in lines if line.startswith(("flags", "Features"))), [])
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)


def _quotas() -> list[float]:
    """What control groups allow, in processors."""
    found = []
    for version, folder in groups("cpu"):
        names = ("cpu.max",) if version == 2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        quota, *period = " ".join(_text(folder / name) for name in names).split() or ["max"]
        if period and quota not in ("max", "-1"):
            found.append(int(quota) / int(period[0]))
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:  # not Linux, or a container that hides it
        return ""


def _cpu_model() -> str:
    models = (line.partition(":")[2].strip() for line in _text(CPUS).splitlines() if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())
