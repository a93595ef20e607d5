"""The one door: a proxy that answers for the hosts it plays, and refuses every other.

CONNECT is answered and TLS spoken on the same connection, so that there is nothing behind the door to be reached in
another way. A job is given a door of its own: that is how its metadata service knows who asks.
"""

import socket
import ssl
import struct
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from phi3_assets_tests.azure_standin.faults import Fault, Faults
from phi3_assets_tests.azure_standin.names import BLOB_HOST, METADATA_HOST, TLS_HOSTS, VAULT_HOST
from phi3_assets_tests.azure_standin.storage import StorageConnection
from phi3_assets_tests.azure_standin.traffic import Traffic
from phi3_assets_tests.azure_standin.wire import Request, Response, read_request, reading

Handler = Callable[[Request], Response]


class Gateway:
    """Listens, and hands requests to the handler of their host, storage to Azurite."""

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        direct: Handler,
        faults: Faults,
        traffic: Traffic,
        server_tls: ssl.SSLContext,
        storage: Callable[[], StorageConnection],
    ) -> None:
        """Nothing listens yet.

        Args:
            handlers: Who answers, by host; storage is not among them.
            direct: Who answers what is asked of the door itself, not through it.
            faults: What goes wrong on order.
            traffic: Where exchanges are noted.
            server_tls: Certificate of the hosts.
            storage: Makes a connection to Azurite.
        """
        self._handlers, self._direct = handlers, direct
        self._faults, self._traffic = faults, traffic
        self._server_tls, self._storage = server_tls, storage

    def listen(self, job: str = "") -> socket.socket:
        """Open a door on a free port; whatever comes through it comes from `job`. Closing it closes the door."""
        door = socket.create_server(("127.0.0.1", 0), backlog=128)
        threading.Thread(target=self._accept, args=(door, job), name=f"door {job}", daemon=True).start()
        return door

    def _accept(self, door: socket.socket, job: str) -> None:
        while True:
            try:
                connection, _ = door.accept()
            except OSError:  # closed
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(connection, job), name="connection", daemon=True).start()

    def _serve(self, connection: socket.socket, job: str) -> None:
        reader = reading(connection)
        storage = self._storage()
        host = ""
        try:
            while request := read_request(reader, host, job):
                if request.method == "CONNECT":
                    host = request.target.partition(":")[0]
                    if host not in TLS_HOSTS:
                        return self._refuse(connection, host)
                    connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    connection = self._server_tls.wrap_socket(connection, server_side=True)
                    reader = reading(connection)
                elif not host and request.host not in ("", METADATA_HOST):
                    return self._refuse(connection, request.host)
                elif not self._answer(request, connection, storage):
                    return reset(connection)
        except (OSError, ssl.SSLError):  # the client hung up, as killed jobs do
            return None
        finally:
            with suppress(OSError):
                connection.close()
            storage.close()
        return None

    def _refuse(self, connection: socket.socket, host: str) -> None:
        self._traffic.leak(host)
        connection.sendall(Response(403, f"The stand-in does not play {host}.\n".encode()).encode())

    def _answer(self, request: Request, connection: socket.socket, storage: StorageConnection) -> bool:
        """False where the connection shall break."""
        if not request.host:
            connection.sendall(self._handled(self._direct, request).encode())
            return True
        fault = self._faults.strike(request)
        if fault is not None and fault.kind == "reset":
            self._traffic.record(request, 0, None, None, fault.kind)
            return False
        said = fault.answer(request) if fault is not None else None
        if request.host == BLOB_HOST and said is None:
            return self._relayed(request, connection, storage, fault)
        handler = self._handlers.get(request.host)
        # A fault's answer leaves the rest of the connection usable: the body must be read first.
        body = _readable(request)
        response = said or self._handled(handler, request)
        hidden = request.host == VAULT_HOST and response.status == 200
        answered = {"value": "hidden"} if hidden else response.json()
        kind = fault.kind if fault is not None else ""
        broken = kind in ("lost", "cut")
        self._traffic.record(request, 0 if broken else response.status, body, answered, kind)
        encoded = response.encode()
        if kind != "lost":
            connection.sendall(encoded[: len(encoded) - len(response.body) // 2] if broken else encoded)
        return not broken

    def _relayed(
        self, request: Request, connection: socket.socket, storage: StorageConnection, fault: Fault | None
    ) -> bool:
        kind = fault.kind if fault is not None else ""
        allowed = fault.bytes if fault is not None and kind == "cut" else 0 if kind == "lost" else None
        send = connection.sendall if allowed is None else Limited(connection, allowed)
        try:
            status, sent, received = storage.relay(request, send)
        except Cut:
            self._traffic.record(request, 0, None, None, kind)
            return False
        self._traffic.record(request, status, sent, received, kind)
        return True

    def _handled(self, handler: Handler | None, request: Request) -> Response:
        try:
            if handler is None:
                raise LookupError(f"Nobody answers for {request.host}.")
            return handler(request)
        except Exception:  # told to the session, which fails
            self._traffic.own_fault(f"{request.method} {request.host}{request.target}\n{traceback.format_exc()}")
            return Response(500, traceback.format_exc().encode())


def reset(connection: socket.socket) -> None:
    """Break a connection: the other side gets ECONNRESET, not an end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Cut(Exception):
    """An answer was cut, as ordered."""


class Limited:
    """Sends the first so many bytes of an answer; what is more than that cuts it."""

    def __init__(self, connection: socket.socket, allowed: int) -> None:
        self._connection, self._allowed = connection, allowed

    def __call__(self, piece: bytes) -> None:
        self._connection.sendall(piece[: self._allowed])
        self._allowed -= len(piece)
        if self._allowed < 0:
            raise Cut


def _readable(request: Request) -> Any:
    value = request.json()
    return value if value is not None else len(request.body)
