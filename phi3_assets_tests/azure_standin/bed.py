"""The stand-in as a test sees it: started, told what to do, asked what happened."""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from phi3_assets_tests.azure_standin.names import CLIENT, GROUP, SUBSCRIPTION, TENANT
from phi3_assets_tests.azure_standin.tokens import SECRET


class Bed:
    """A running stand-in. It ends with the process that made it, however that ends.

    Attributes:
        workspace: Name of the workspace; another after each `reset`.
        prefix: Where tests put things in the container.
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
        self._address = f"http://127.0.0.1:{ready['port']}"
        self._authority: str = ready["authority"]
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
        """Proxy and certificates only; both spellings, because a machine may have set either."""
        proxies = {"HTTPS_PROXY": self._address, "HTTP_PROXY": self._address, "NO_PROXY": "127.0.0.1,localhost"}
        lower = {name.lower(): value for name, value in proxies.items()}
        return {**proxies, **lower, **dict.fromkeys(AUTHORITIES, self._authority)}

    def apply(self, monkeypatch: Any) -> None:
        """Put this process into this Azure, until the test is over."""
        for name in [name for name in os.environ if name.startswith(("PHI3_AZURE_", "AZURE_", "ALL_PROXY"))]:
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

    def forgive_leaks(self) -> list[str]:
        """The leaks so far, which the test meant; forgotten from now on."""
        return list(self.ask("problems/forgive", {})["leaks"])

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

    def reset(self) -> None:
        """A new, empty workspace with new containers; jobs are killed, faults and traffic forgotten."""
        self.workspace = self.ask("reset", {})["workspace"]

    def ask(self, path: str, body: Any = None) -> Any:
        """GET, or POST `body` to, the stand-in's own interface (`admin.py`)."""
        data = None if body is None else json.dumps(body).encode()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(urllib.request.Request(f"{self._address}/standin/{path}", data), timeout=60) as answer:
            return json.loads(answer.read())

    def close(self) -> None:
        """End it and everything that it started."""
        self._process.communicate()


AUTHORITIES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
