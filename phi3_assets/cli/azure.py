"""`phi3 azure`: whether a workspace is ready for this project."""

from typing import Annotated

import typer

azure = typer.Typer(no_args_is_help=True, help="Azure Machine Learning, as PHI3_AZURE_* and the YAML file describe it.")


@azure.callback()
def _group() -> None:
    """Without this, Typer takes the only command of a group for the group itself."""


@azure.command()
def check(
    write: Annotated[bool, typer.Option("--write", help="Also put a blob into the datastore, and remove it.")] = False,
    create_environment: Annotated[
        bool, typer.Option("--create-environment", help="Also make the environment that jobs run in.")
    ] = False,
) -> None:
    """Ask for everything a job needs, one line each, with the `az` command that mends what is wrong.

    Nothing is changed without --write or --create-environment.
    """
    from phi3_assets.cli.checked import show_checked
    from phi3_assets.resources.azureml_check import check_azure

    show_checked(check_azure(write=write, create_environment=create_environment))
