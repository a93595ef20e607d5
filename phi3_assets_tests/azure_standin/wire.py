"""HTTP/1.1 as bytes on a connection: requests in, answers out, and bodies copied from one side to the other."""

import io
import json
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPMessage, parse_headers
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

PIECE = 1 << 18
LONGEST_LINE = 1 << 16


@dataclass
class Request:
    """One request. Its body is read from the connection when it is asked for, or copied on by whoever relays it."""

    method: str
    target: str
    host: str
    headers: HTTPMessage
    reader: io.BufferedReader
    job: str = ""
    _body: bytes | None = None

    @property
    def path(self) -> str:
        """Path, decoded."""
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, str]:
        """Query; the last value of each name."""
        parsed = parse_qs(urlsplit(self.target).query, keep_blank_values=True)
        return {name: values[-1] for name, values in parsed.items()}

    @property
    def body(self) -> bytes:
        """The whole body."""
        if self._body is None:
            self._body = b"".join(body_pieces(self.reader, self.headers, framed=False))
        return self._body

    def json(self) -> Any:
        """The body as JSON; None where it is empty or is no JSON."""
        try:
            return json.loads(self.body or b"null")
        except ValueError:
            return None


@dataclass
class Response:
    """One answer."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, status: int, value: Any, headers: Mapping[str, str] | None = None) -> "Response":
        """An answer in JSON."""
        return cls(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def json(self) -> Any:
        """The body as JSON; how many bytes it has where it is no JSON."""
        try:
            return json.loads(self.body or b"null")
        except ValueError:
            return len(self.body)

    def encode(self) -> bytes:
        """What goes over the wire."""
        reason = HTTPStatus(self.status).phrase
        headers = {**self.headers, "Content-Length": str(len(self.body))}
        lines = [f"HTTP/1.1 {self.status} {reason}", *(f"{name}: {value}" for name, value in headers.items())]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + self.body


class _Incoming(io.RawIOBase):
    """A connection's bytes, each acknowledged at once.

    urllib3 leaves Nagle's algorithm on when it speaks through a proxy: it sends the head of a request and holds the
    body back until that is acknowledged, which Linux delays by 40 ms. Azure itself is not reached through a proxy.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._connection.recv_into(buffer)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return count


def reading(connection: socket.socket) -> io.BufferedReader:
    """What arrives on a connection; closing it is the connection's own business."""
    return io.BufferedReader(_Incoming(connection), PIECE)


def read_request(reader: io.BufferedReader, host: str = "", job: str = "") -> Request | None:
    """The next request of a connection, without its body; None when the other side is done.

    Args:
        reader: The connection.
        host: Whom the connection was opened to; empty: what the request says itself.
        job: Name of the job that the connection comes from.
    """
    line = reader.readline(LONGEST_LINE)
    if not line.strip():
        return None
    method, target, _ = line.decode("latin-1").split(" ", 2)
    headers = parse_headers(reader)
    if not host:
        parts = urlsplit(target)
        host = parts.hostname or ""
        if host:  # a proxy is asked for whole addresses
            target = target.removeprefix(f"{parts.scheme}://{parts.netloc}") or "/"
    return Request(method, target, host, headers, reader, job)


def body_pieces(reader: io.BufferedReader, headers: HTTPMessage, framed: bool) -> Iterator[bytes]:
    """The body that follows `headers`, as it arrives; with `framed`, chunks keep their frame around them."""
    if "chunked" in (headers.get("Transfer-Encoding") or "").lower():
        while True:
            line = reader.readline(LONGEST_LINE)
            size = int(line.split(b";")[0], 16)
            content = reader.read(size)
            end = reader.readline(LONGEST_LINE)
            yield line + content + end if framed else content
            if not size:
                return
    left = int(headers.get("Content-Length") or 0)
    while left:
        piece = reader.read(min(left, PIECE))
        if not piece:
            raise ConnectionError("The other side closed the connection in the middle of a body.")
        left -= len(piece)
        yield piece


def copy_body(reader: io.BufferedReader, headers: HTTPMessage, send: Callable[[bytes], object]) -> int:
    """Copy the body that follows `headers`, framed as it is; how many bytes those were."""
    total = 0
    for piece in body_pieces(reader, headers, framed=True):
        send(piece)
        total += len(piece)
    return total


def encode_head(first: str, headers: HTTPMessage) -> bytes:
    """First line and headers as they came."""
    lines = [first, *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
