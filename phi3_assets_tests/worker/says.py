"""A worker that says what it is, or something, or ends with a code; a script."""

import gc
import json
import os
import sys

from phi3_assets.worker.processes import die_with_parent


def facts() -> dict[str, object]:
    """What a worker has from the server that it was forked from."""
    threads = len(os.listdir("/proc/self/task"))
    imported = "olive.passes.pytorch.lora" in sys.modules
    listed = [int(name) for name in os.listdir("/proc/self/fd")]
    given = int(os.environ["PHI3_PARENT_PIPE"])
    descriptors = sorted(n for n in listed if n != given and os.path.exists(f"/proc/self/fd/{n}"))
    import torch

    return {
        "imported": imported,
        "cuda": torch.cuda.is_initialized(),
        "session": os.getsid(0),
        "threads": threads,
        "open": descriptors,
        "collects": gc.isenabled(),
    }


if __name__ == "__main__":
    if sys.argv[1] == "--facts":
        print(json.dumps(facts()))
    elif sys.argv[1] == "--code":
        sys.exit(int(sys.argv[2]))
    else:
        die_with_parent()
        print(os.environ["SAID"], sys.argv[1])
    sys.exit(3)
