"""`phi3 doctor`: whether everything is in order that a run needs."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from phi3_assets.cli.options import Home
from phi3_assets.core.home import default_home

if TYPE_CHECKING:
    import dagster as dg


def doctor(home: Home = None) -> None:
    """Ask machine, versions, home, hub, Dagster's instance and Azure, a line each; what is wrong says what to do.

    Nothing is changed. Exit code 1: something is wrong.
    """
    from phi3_assets.cli.checked import show_checked
    from phi3_assets.resources.doctor import examine

    show_checked(examine(home or default_home(), _jobs))


def _jobs() -> "Iterable[dg.JobDefinition]":
    from phi3_assets.definitions import build_defs

    return build_defs().resolve_all_job_defs()
