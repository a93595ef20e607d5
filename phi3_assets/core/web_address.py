"""The addresses of the pages that `phi3 web` shows, for the links in the Dagster UI.

Links are written into events that stay for years, so a page is named by identity and the port is a setting, not a
chance: PHI3_WEB_PORT, by default 8000; 0 where nobody runs `phi3 web`, as in a container, and then no link is written.
The server listens on the same setting, on the loopback address alone: a link opens on the machine that has the home.
"""

import os

from phi3_assets.core.errors import UserError

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 8000
PORT_VARIABLE = "PHI3_WEB_PORT"
REPORT, DECISION, LINEAGE = "report", "decision", "lineage"
"""The kinds of pages."""


def web_port() -> int:
    """The port that the environment names; 0: there is no page server.

    Raises:
        UserError: PHI3_WEB_PORT is no port.
    """
    given = os.environ.get(PORT_VARIABLE) or str(DEFAULT_PORT)
    if not given.isdecimal() or int(given) > 65535:
        raise UserError(
            f"{PORT_VARIABLE}={given!r} is no port. Give a number from 1 to 65535, or 0 where `phi3 web` is not used."
        )
    return int(given)


def page_path(kind: str, *names: str) -> str:
    """Where the server shows a page.

    Args:
        kind: report or lineage, named by the identity of an eval_report or a release_bundle; or decision, named by its
            product and its name in the ledger.
        names: Of the page.
    """
    return "/" + "/".join([kind, *names])


def page_url(kind: str, *names: str) -> str | None:
    """The address of a page; None where there is no page server."""
    port = web_port()
    return f"http://{LOOPBACK}:{port}{page_path(kind, *names)}" if port else None
