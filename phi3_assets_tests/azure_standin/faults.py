"""Faults on order: the n-th request that matches is answered wrongly, late, or not at all."""

import dataclasses
import re
import threading
from typing import Any, Literal

from phi3_assets_tests.azure_standin.names import CLIENT
from phi3_assets_tests.azure_standin.wire import Request, Response

ACTIONS = {"GET": "read", "PUT": "write", "DELETE": "delete"}
HTML = b"\r\n".join(
    [
        b"<html>",
        b"<head><title>503 Service Temporarily Unavailable</title></head>",
        b"<body>",
        b"<center><h1>503 Service Temporarily Unavailable</h1></center>",
        b"<hr><center>nginx</center>",
        b"</body>",
        b"</html>",
        b"",
    ]
)


@dataclasses.dataclass
class Fault:
    """One rule. The regular expressions must match the whole method, and be found in host, path and query.

    Attributes:
        method: Regular expression.
        host: Regular expression.
        path: Regular expression.
        query: Regular expression, on the query as it stands in the address.
        job: Regular expression, on the name of the job that asks; '^$': whoever is no job.
        skip: So many matching requests pass first.
        times: So many are then failed; -1: all.
        kind: 'answer' (with `status`), 'html' (nginx's 503 page), 'reset' (the connection), 'stall' (`seconds` late,
            then as ever), 'lost' (done, but the connection breaks instead of an answer), 'cut' (done, but it breaks in
            the middle of the answer, of storage after `bytes` bytes), 'forbidden' (403 as Azure Resource Manager says
            it), 'quota' (400 JobNodeCountExceedsCoreQuota).
        status: Status of 'answer'.
        seconds: How late 'stall' is.
        bytes: How much of the answer 'cut' lets through, its head included.
        headers: More headers of an answer, such as Retry-After.
        code: Error code in an answer.
        message: Error message in an answer.
        used: How often it struck.
    """

    method: str = ".*"
    host: str = ""
    path: str = ""
    query: str = ""
    job: str = ""
    skip: int = 0
    times: int = 1
    kind: Literal["answer", "html", "reset", "stall", "lost", "cut", "forbidden", "quota"] = "answer"
    status: int = 500
    seconds: float = 0
    bytes: int = 0
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    code: str = "InjectedFault"
    message: str = "A fault that the test asked for."
    used: int = 0

    def matches(self, request: Request) -> bool:
        """True where the rule is about this request."""
        query = request.target.partition("?")[2]
        return bool(
            re.fullmatch(self.method, request.method)
            and re.search(self.host, request.host)
            and re.search(self.path, request.path)
            and re.search(self.query, query)
            and re.search(self.job, request.job)
        )

    def answer(self, request: Request) -> Response | None:
        """What is said instead of the truth; None where the truth is said (late), or nothing at all."""
        if self.kind in ("reset", "lost", "cut", "stall"):
            return None
        if self.kind == "html":
            return Response(503, HTML, {"Content-Type": "text/html", **self.headers})
        if self.kind == "forbidden":
            provider, *parts = request.path.partition("/providers/")[2].split("/")
            action = "/".join([provider, *parts[::2], ACTIONS.get(request.method, "action")])
            return _error(
                403,
                "AuthorizationFailed",
                f"The client '{CLIENT}' with object id '{CLIENT}' does not have authorization to perform action "
                f"'{action}' over scope '{request.path}' or the scope is "
                "invalid. If access was recently granted, please refresh your credentials.",
                self.headers,
            )
        if self.kind == "quota":
            return _error(
                400,
                "UserError",
                "JobNodeCountExceedsCoreQuota: The specified job needs more cores than the remaining quota of the "
                "subscription allows.",
                self.headers,
            )
        if request.host.endswith("windows.net"):
            body = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{self.code}</Code><Message>{self.message}\
</Message></Error>'
            headers = {"Content-Type": "application/xml", "x-ms-error-code": self.code, **self.headers}
            return Response(self.status, body.encode(), headers)
        return _error(self.status, self.code, self.message, self.headers)


class Faults:
    """The rules that stand."""

    def __init__(self) -> None:
        """None."""
        self._rules: list[Fault] = []
        self._lock = threading.Lock()
        self._forgotten = threading.Event()

    def add(self, rule: Fault) -> None:
        """Another rule; earlier ones come first."""
        with self._lock:
            self._rules.append(rule)

    def clear(self) -> None:
        """Forget all; what stalls at the moment is never answered."""
        with self._lock:
            self._rules.clear()
            self._forgotten.set()
            self._forgotten = threading.Event()

    def listing(self) -> list[dict[str, Any]]:
        """The rules, with how often each struck."""
        with self._lock:
            return [dataclasses.asdict(rule) for rule in self._rules]

    def strike(self, request: Request) -> Fault | None:
        """The rule that strikes this request, counted; a stall has been sat out.

        Raises:
            ConnectionAbortedError: It was not, because the rule was forgotten: nobody waits for the answer any more.
        """
        with self._lock:
            struck, forgotten = self._next(request), self._forgotten
        if struck is not None and struck.kind == "stall" and forgotten.wait(struck.seconds):
            raise ConnectionAbortedError("The rule that held this request back was forgotten.")
        return struck

    def _next(self, request: Request) -> Fault | None:
        for rule in self._rules:
            if not rule.times or not rule.matches(request):
                continue
            if rule.skip:
                rule.skip -= 1
                continue
            rule.times -= 1
            rule.used += 1
            return rule
        return None


def _error(status: int, code: str, message: str, headers: dict[str, str]) -> Response:
    return Response.of(status, {"error": {"code": code, "message": message}}, headers)
