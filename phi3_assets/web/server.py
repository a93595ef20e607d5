"""The server of the pages: only this computer reaches it, and only its own pages can make a model answer.

It listens on the loopback address, the Host header must name that (a foreign name that is made to resolve to it does
not: DNS rebinding), and so must the Origin of what a browser posts. Its pages load nothing from elsewhere.
"""

import contextlib
import socket

import uvicorn
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from phi3_assets.chat.serving import Models
from phi3_assets.core.errors import UserError
from phi3_assets.core.web_address import LOOPBACK, PORT_VARIABLE

MAX_BODY_BYTES = 1 << 20
POLICY = "Content-Security-Policy"
HEADERS = {
    POLICY: "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # Also the scripts: after an update the page must not run yesterday's.
    "Cache-Control": "no-store",
}


class Guard:
    """Refuses what another page posts, and gives every response the headers that keep the page to itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)  # a page that a step made has a policy of its own
            await send(message)

        headers = Headers(scope=scope)
        # A browser gives its page's origin with every POST; programs such as curl give none.
        if headers.get("origin", f"http://{headers.get('host')}") != f"http://{headers.get('host')}":
            await PlainTextResponse("Only the page of this server may ask.", 403)(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)


GUARDED = [
    Middleware(Guard),
    Middleware(TrustedHostMiddleware, allowed_hosts=[LOOPBACK, "localhost"], www_redirect=False),
    Middleware(RequestBodyLimitMiddleware, max_body_size=MAX_BODY_BYTES),
]
"""What stands before every page."""


class Server(uvicorn.Server):
    """Cuts answers off when it is told to end; uvicorn would wait for them."""

    def __init__(self, app: ASGIApp, models: Models) -> None:
        """`models` are those that `app` asks."""
        super().__init__(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ws="none",
                lifespan="off",
            )
        )
        self._models = models

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the answers, then what uvicorn ends."""
        self._models.end()
        await super().shutdown(sockets)


def serve(app: ASGIApp, models: Models, listener: socket.socket) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        app: The pages.
        models: Those that it asks.
        listener: From `listen`.
    """
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn hands it on when it has ended
        Server(app, models).run(sockets=[listener])


def listen(port: int) -> socket.socket:
    """A listening socket on the loopback address.

    Args:
        port: TCP port; 0: any free one.

    Raises:
        UserError: The port is taken, or not allowed.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
        listener.listen()  # now, so that of two servers the second is told
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or "ports are numbers from 0 to 65535"
        raise UserError(
            f"Cannot listen on {LOOPBACK}:{port}: {reason}. Choose another --port, or 0 for any. Links in the "
            f"Dagster UI name the port of {PORT_VARIABLE}, else 8000: set it to a free one for both, UI and pages."
        ) from None
    return listener


def address(listener: socket.socket) -> str:
    """Where a listener is reached."""
    return f"http://{LOOPBACK}:{listener.getsockname()[1]}"
