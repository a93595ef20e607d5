"""`phi3 web` and `phi3 ui`: the pages of a home, alone or beside the Dagster UI."""

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from phi3_assets.cli.options import Home
from phi3_assets.core.errors import UserError
from phi3_assets.core.home import default_home, prepare_home
from phi3_assets.core.web_address import PORT_VARIABLE, web_port

if TYPE_CHECKING:
    from phi3_assets.chat.page import Settings

Port = Annotated[
    int | None,
    typer.Option(help=f"Where it listens, on this computer only; 0: any free; default: {PORT_VARIABLE}, else 8000."),
]


def web(port: Port = None, home: Home = None) -> None:
    """Show the pages of this home: products and releases, reports, decisions, lineage, and chat with any release."""
    from phi3_assets.chat.page import Settings
    from phi3_assets.worker.processes import die_with_parent

    die_with_parent()  # of `phi3 ui`
    serve_pages(home, Settings(), port, "/")


def ui(
    workspace: Annotated[Path, typer.Option(help="Dagster's workspace file.")] = Path("workspace.yaml"),
    port: Annotated[int, typer.Option(help="Where the Dagster UI listens.")] = 3000,
    home: Home = None,
) -> None:
    """Start the Dagster UI, and the pages that it links to; one Ctrl-C ends both."""
    from phi3_assets.worker.processes import PARENT_PIPE

    if not workspace.is_file():
        raise UserError(f"There is no workspace file at {workspace.absolute()}; name it with --workspace.")
    home = home or default_home()
    prepare_home(home)
    dagster = str(Path(sys.executable).with_name("dagster"))
    if web_port():
        # Whoever has the writing end is the parent: this process, which becomes Dagster's. However that ends, the pipe
        # closes and the pages end too.
        reading, writing = os.pipe()
        os.set_inheritable(writing, True)
        subprocess.Popen(
            [sys.executable, "-m", "phi3_assets.cli.app", "web", "--home", str(home)],
            env={**os.environ, PARENT_PIPE: str(reading)},
            stdin=subprocess.DEVNULL,
            pass_fds=(reading,),
            start_new_session=True,
        )
        os.close(reading)
    os.execv(dagster, [dagster, "dev", "--workspace", str(workspace), "--port", str(port)])  # noqa: S606 (no shell is wanted)


def serve_pages(home: Path | None, settings: "Settings", port: int | None, path: str) -> None:
    """Serve the pages until Ctrl-C.

    Args:
        home: PHI3_HOME.
        settings: What the chat page starts with.
        port: Where; None: the environment's.
        path: Which page is named to the user.

    Raises:
        UserError: The port is taken, or not allowed.
    """
    from phi3_assets.chat.engines import INPUTS
    from phi3_assets.chat.serving import Models, Which
    from phi3_assets.cli.results import asked_of, store_of
    from phi3_assets.web.app import make_app
    from phi3_assets.web.server import address, listen, serve

    def find(which: Which, variant: str) -> dict[str, Path]:
        # Asked anew each time: a champion that is promoted meanwhile answers from then on.
        return asked_of(home, which, fetched=INPUTS[variant]).directories

    def describe(which: Which) -> tuple[str, str]:
        found = asked_of(home, which, fetched=())
        return found.told, found.system_prompt

    store = store_of(home)
    listener = listen(web_port() if port is None else port)
    print(f"{address(listener)}{path} shows {store.home_path}, on this computer only. Ctrl-C ends it.", flush=True)
    models = Models(find)
    serve(make_app(store, models, describe, settings), models, listener)
