"""The stand-in as a test sees it: started, told what to do, asked what happened."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from phi3_assets_tests.azure_standin.job import TERMINAL
from phi3_assets_tests.azure_standin.names import CLIENT, GROUP, SUBSCRIPTION, TENANT
from phi3_assets_tests.azure_standin.network import network_variables
from phi3_assets_tests.azure_standin.tokens import SECRET

PREEMPTED = "Nodes of this job got pre-empted. Check if the run has failed or restarted."

# Another Azure, identity or way out that the tester's machine may know of.
OF_THE_TESTER = ("PHI3_AZURE_", "AZURE", "MSI_", "IDENTITY_", "ALL_PROXY", "all_proxy")


class Bed:
    """A running stand-in. It ends with the process that made it, however that ends.

    Attributes:
        pid: Process id of the stand-in.
        workspace: Name of the workspace; another after each `reset`.
    """

    def __init__(self, folder: Path) -> None:
        """Start one; takes two seconds, the first time in a clone half a minute for npm.

        Raises:
            RuntimeError: It did not start; its own words are in `folder`/standin.log.
        """
        log = folder / "standin.log"
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "phi3_assets_tests.azure_standin", str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=Path(__file__).parents[2],
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"The stand-in did not start:\n{log.read_text(errors='replace')}")
        ready = json.loads(line)
        self.pid = self._process.pid
        self._port: int = ready["port"]
        self._authority = Path(ready["authority"])
        self.workspace: str = ready["workspace"]

    @property
    def env(self) -> dict[str, str]:
        """What a client's process needs in its environment to find itself in this Azure."""
        return {
            **self.network,
            "AZURE_TENANT_ID": TENANT,
            "AZURE_CLIENT_ID": CLIENT,
            "AZURE_CLIENT_SECRET": SECRET,
            "PHI3_AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
            "PHI3_AZURE_RESOURCE_GROUP": GROUP,
            "PHI3_AZURE_WORKSPACE": self.workspace,
            "PHI3_AZURE_COMPUTE": "cpu-cluster",
        }

    @property
    def network(self) -> dict[str, str]:
        """Proxy and certificates only."""
        return network_variables(self._port, self._authority)

    def apply(self, monkeypatch: Any) -> None:
        """Put this process into this Azure, until the test is over."""
        for name in [name for name in os.environ if name.startswith(OF_THE_TESTER)]:
            monkeypatch.delenv(name)
        for name, value in self.env.items():
            monkeypatch.setenv(name, value)

    def traffic(self, method: str = "", host: str = "", path: str = "") -> list[dict[str, Any]]:
        """Exchanges since the last `clear`, oldest first; `method` is equal, `host` and `path` contain these."""
        return [
            exchange
            for exchange in self.ask("traffic")
            if method in ("", exchange["method"]) and host in exchange["host"] and path in exchange["path"]
        ]

    def problems(self) -> dict[str, list[str]]:
        """Hosts that were asked for in vain ('leaks') and what the stand-in did wrong itself ('own_faults')."""
        return dict(self.ask("problems"))

    def forgive(self) -> dict[str, list[str]]:
        """The problems so far, which the test meant; forgotten from now on."""
        return dict(self.ask("problems/forgive", {}))

    def fault(self, **rule: Any) -> None:
        """Order a fault; the arguments are the fields of `faults.Fault`."""
        self.ask("faults", rule)

    def faults(self) -> list[dict[str, Any]]:
        """What was ordered; `used` says how often each struck."""
        return list(self.ask("faults"))

    def clear(self) -> None:
        """Forget faults and traffic."""
        self.ask("faults/clear", {})
        self.ask("traffic/clear", {})

    def token_lifetime(self, seconds: int) -> None:
        """How long tokens live that are handed out from now on."""
        self.ask("tokens", {"lifetime_s": seconds})

    def secret(self, name: str, value: str) -> None:
        """Put a secret into the key vault."""
        self.ask("secrets", {"name": name, "value": value})

    def hold(self, compute: str, held: bool = True) -> None:
        """Jobs of this compute stay in Queued, or no longer."""
        self.ask("hold", {"compute": compute, "held": held})

    def quota(self, cores: int) -> None:
        """No quota of the subscription allows more cores than these."""
        self.ask("core-limit", {"cores": cores})

    def hang_cancels(self, hang: bool = True) -> None:
        """Jobs that are cancelled stay in CancelRequested and go on, or no longer."""
        self.ask("hang-cancels", {"hang": hang})

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs, the first one first: name, status, history, attempt, error, compute, closed, properties."""
        return list(self.ask("jobs"))

    def job(self, name: str) -> dict[str, Any]:
        """One of them."""
        return next(job for job in self.jobs() if job["name"] == name)

    def wait_for(self, name: str, status: str, timeout_s: float = 60, attempt: int = 0) -> dict[str, Any]:
        """Wait until a job is in this status, in this attempt if one is given, and return it.

        Raises:
            TimeoutError: It is not, after `timeout_s` seconds; says where it stands.
            RuntimeError: It has ended in another way; says how.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            job = self.job(name)
            if job["status"] == status and attempt in (0, job["attempt"]):
                return job
            if job["status"] in TERMINAL:
                raise RuntimeError(f"{name} ended before it was {status}: {job['history']}, {job['error']}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} is not {status} after {timeout_s} s: {job['history']}")
            time.sleep(0.05)

    def wait_closed(self, name: str, timeout_s: float = 30) -> None:
        """Wait until no process of a job is left.

        Raises:
            TimeoutError: One is.
        """
        deadline = time.monotonic() + timeout_s
        while not self.job(name)["closed"]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} still has processes after {timeout_s} s.")
            time.sleep(0.05)

    def announce(self, name: str, seconds: float = 30) -> None:
        """The metadata service of a job's nodes says that they will be taken away after so many seconds."""
        self.ask(f"jobs/{name}/announce", {"seconds": seconds})

    def withdraw(self, name: str) -> None:
        """They stay after all."""
        self.ask(f"jobs/{name}/withdraw", {})

    def evict(self, name: str) -> None:
        """Take a job's nodes away, now: its processes are killed and it is queued again under its name."""
        self.ask(f"jobs/{name}/evict", {})

    def preempt(self, name: str, notice_s: float) -> None:
        """Announce it, and take the nodes away `notice_s` seconds later."""
        self.announce(name, notice_s)
        time.sleep(notice_s)
        self.evict(name)

    def doom(self, name: str, code: str = "PreemptionError", message: str = PREEMPTED) -> None:
        """The service itself ends a job as Failed, with this error."""
        self.ask(f"jobs/{name}/doom", {"code": code, "message": message})

    def warn(self, name: str, message: str) -> None:
        """The service remarks something about a job."""
        self.ask(f"jobs/{name}/warn", {"message": message})

    def show(self, name: str, status: str | None) -> None:
        """Report this status of a job, such as NotResponding; None: the true one again."""
        self.ask(f"jobs/{name}/show", {"status": status})

    def reset(self) -> None:
        """A new, empty workspace with new containers; jobs are killed, faults and traffic forgotten."""
        self.workspace = self.ask("reset", {})["workspace"]

    def ask(self, path: str, body: Any = None) -> Any:
        """GET, or POST `body` to, the stand-in's own interface (`admin.py`)."""
        data = None if body is None else json.dumps(body).encode()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(
            urllib.request.Request(f"http://127.0.0.1:{self._port}/standin/{path}", data), timeout=60
        ) as answer:
            return json.loads(answer.read())

    def close(self) -> None:
        """End it and everything that it started."""
        self._process.communicate()
