"""Every exchange, remembered and written as JSON lines; of credentials only their kind, and no signatures."""

import json
import threading
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from phi3_assets_tests.azure_standin.wire import Request

SECRET_PARAMETERS = ("sig", "se", "st", "skoid", "sktid", "ske", "sks")


class Traffic:
    """What went through the stand-in.

    Attributes:
        leaks: Hosts that were asked for and refused.
        own_faults: Answers of ours that the schema refuses, and crashes: the stand-in is wrong, and tests must fail.
    """

    def __init__(self, file: Path | None) -> None:
        """Exchanges are also appended to `file`, if there is one."""
        self._file = file
        self._lock = threading.Lock()
        self._exchanges: list[dict[str, Any]] = []
        self.leaks: list[str] = []
        self.own_faults: list[str] = []

    def record(self, request: Request, status: int, said: Any, answered: Any, fault: str = "") -> None:
        """Remember one exchange.

        Args:
            request: The request.
            status: Status of the answer; 0: there was none.
            said: Body of the request, as JSON or as how many bytes.
            answered: Body of the answer, likewise.
            fault: The kind of fault that struck it.
        """
        query = parse_qsl(request.target.partition("?")[2], keep_blank_values=True)
        exchange = {
            "method": request.method,
            "host": request.host,
            "path": request.path,
            "query": {name: value for name, value in query if name not in SECRET_PARAMETERS},
            "job": request.job,
            "authorization": (request.headers.get("Authorization") or "").partition(" ")[0],
            "request": without_secrets(said),
            "status": status,
            "response": without_secrets(answered),
            "fault": fault,
        }
        with self._lock:
            self._exchanges.append(exchange)
            if self._file is not None:
                with self._file.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(exchange) + "\n")

    def leak(self, host: str) -> None:
        """Somebody asked for a host that is none of ours."""
        with self._lock:
            self.leaks.append(host)

    def own_fault(self, what: str) -> None:
        """The stand-in itself did something wrong."""
        with self._lock:
            self.own_faults.append(what)

    def listing(self) -> list[dict[str, Any]]:
        """All exchanges so far."""
        with self._lock:
            return list(self._exchanges)

    def clear(self) -> None:
        """Forget them; leaks and own faults stay, because they fail the session."""
        with self._lock:
            self._exchanges.clear()


def without_secrets(value: Any) -> Any:
    """The same JSON, with tokens, keys, signatures and secrets replaced."""
    if isinstance(value, dict):
        return {name: _hidden(name, item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    if isinstance(value, str) and "sig=" in value:
        return value.partition("?")[0] + "?hidden"
    return value


def _hidden(name: str, value: Any) -> Any:
    if name in ("access_token", "client_secret", "client_assertion", "key") and isinstance(value, str):
        return "hidden"
    return without_secrets(value)
