"""`phi3`: the asset graph and its results from a terminal, on the same home as the Dagster UI."""

import os
import sys
from typing import Annotated

import typer

from phi3_assets import __version__
from phi3_assets.cli import commands
from phi3_assets.cli.azure import azure
from phi3_assets.cli.doctor import doctor
from phi3_assets.cli.options import Home, Overrides, RecipeName, parse_overrides
from phi3_assets.cli.recipes import recipes
from phi3_assets.cli.testset import testset
from phi3_assets.cli.web import ui, web
from phi3_assets.core.disk import of_the_database, of_the_disk
from phi3_assets.core.errors import UserError
from phi3_assets.core.home import default_home, prepare_home
from phi3_assets.core.recipe_file import load_recipe

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

app.command()(doctor)
app.command()(recipes)
app.command()(commands.chat)
app.command()(web)
app.command()(ui)
app.command()(commands.lineage)
app.command()(commands.gc)
app.add_typer(commands.champion, name="champion")
app.add_typer(commands.bundle, name="bundle")
app.add_typer(commands.config, name="config")
app.add_typer(testset, name="testset")
app.add_typer(azure, name="azure")


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"phi3-assets {__version__}")
        raise typer.Exit


@app.callback()
def _whole(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """What can be asked of `phi3` itself."""


@app.command()
def init(home: Home = None) -> None:
    """Lay out a new home with the sample dataset; an existing one is left alone."""
    home = home or default_home()
    made = prepare_home(home)
    print(f"Laid out {home}." if made else f"{home} exists and was left as it is.")


@app.command()
def run(
    recipe: RecipeName = "",
    overrides: Overrides = [],  # noqa: B006 - Typer's way
    to: Annotated[str, typer.Option(metavar="ASSET", help="Stop at this asset: make it and what it is made of.")] = "",
    home: Home = None,
) -> None:
    """Materialise the graph, or a part; what stands already is reused. Ends with the scores of the four variants."""
    from phi3_assets.cli.runner import run_graph

    values = parse_overrides(overrides)
    load_recipe(recipe or None, values)  # a wrong recipe is refused before anything is started
    sys.exit(run_graph(home or default_home(), recipe, values, to))


def main() -> None:
    """Entry point; a user's error is shown as its text, so is a disk's or a database's; a defect with its traceback."""
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        reason = of_the_disk(error, os.environ.get("DAGSTER_HOME", "")) or of_the_database(error)
        if reason is None:
            raise
        print(f"error: {reason}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
