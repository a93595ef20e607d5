"""One fork server for all tests of a process: importing torch, transformers and Olive takes five seconds of a core.

For tests of what a step or a run does. That each run starts a server of its own, and that nothing outlives the run, is
tested with runs in processes of their own: `made_home`, test_orphans.py, worker/test_processes.py.
"""

import functools
import os
from collections.abc import Mapping
from pathlib import Path

from phi3_assets.models.environment import SETTINGS
from phi3_assets.resources.local_execution import LocalExecution
from phi3_assets.worker.forkserver import ForkServer
from phi3_assets.worker.processes import Start

ROOT = Path(__file__).parents[1]
"""Where this package is, which is not installed as the other one is."""


@functools.cache
def shared_server(threads: int) -> ForkServer:
    """The server, started when it is first asked for; it ends with this process.

    Args:
        threads: Of torch in the workers, which it reads from the environment while it is imported.
    """
    own = {"OMP_NUM_THREADS": str(threads), "PYTHONSAFEPATH": "1", "PYTHONPATH": str(ROOT)}
    env = {**os.environ, **SETTINGS, **own}
    return ForkServer(env, Path(os.devnull))


class SharedServerExecution(LocalExecution):
    """Forks workers from the tests' server, whichever run they belong to."""

    def _start(self, env: Mapping[str, str], log: Path) -> Start:
        return shared_server(1).start
