"""The storage account: requests go to Azurite as they are, and its answers come back as they are."""

import io
import select
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPMessage, parse_headers

from phi3_assets_tests.azure_standin.names import BLOB_HOST
from phi3_assets_tests.azure_standin.wire import LONGEST_LINE, PIECE, Request, copy_body, encode_head

# Azurite closes a connection that was idle for five seconds; one that old is not trusted any more.
IDLE_S = 3
BODILESS = (204, 304)


class StorageConnection:
    """A connection to Azurite that belongs to one connection of a client."""

    def __init__(self, port: int, tls: ssl.SSLContext) -> None:
        """Nothing is opened yet."""
        self._port, self._tls = port, tls
        self._socket: ssl.SSLSocket | None = None
        self._reader: io.BufferedReader | None = None
        self._used = 0.0

    def relay(self, request: Request, send: Callable[[bytes], object]) -> tuple[int, int, int]:
        """Pass a request on and hand every piece of the answer to `send`.

        Returns:
            Status of the answer, bytes of the request's body, bytes of the answer's body.
        """
        upstream, reader = self._open()
        upstream.sendall(encode_head(f"{request.method} {request.target} HTTP/1.1", request.headers))
        sent = copy_body(request.reader, request.headers, upstream.sendall)
        status, first, headers = _read_head(reader)
        send(encode_head(first, headers))
        bodiless = request.method == "HEAD" or status in BODILESS
        received = 0 if bodiless else copy_body(reader, headers, send)
        self._used = time.monotonic()
        if (headers.get("Connection") or "").lower() == "close":
            self.close()
        return status, sent, received

    def close(self) -> None:
        """Let go of it."""
        for end in (self._reader, self._socket):
            if end is not None:
                with suppress(OSError):
                    end.close()
        self._reader = self._socket = None

    def _open(self) -> tuple[ssl.SSLSocket, io.BufferedReader]:
        if self._socket is not None:
            stale = time.monotonic() - self._used > IDLE_S or select.select([self._socket], [], [], 0)[0]
            if stale:
                self.close()
        if self._socket is None or self._reader is None:
            plain = socket.create_connection(("127.0.0.1", self._port))
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = self._tls.wrap_socket(plain, server_hostname=BLOB_HOST)
            self._reader = self._socket.makefile("rb", buffering=PIECE)
        return self._socket, self._reader


def _read_head(reader: io.BufferedReader) -> tuple[int, str, HTTPMessage]:
    first = reader.readline(LONGEST_LINE).decode("latin-1").strip()
    if not first:
        raise ConnectionError("Azurite closed the connection instead of answering.")
    return int(first.split(" ")[1]), first, parse_headers(reader)
