"""How `phi3 azure check` and `phi3 doctor` show what they were answered."""

import logging
from collections.abc import Iterable

import typer

from phi3_assets.resources.azureml_check import WRONG, Checked


def show_checked(found: Iterable[Checked]) -> None:
    """Print a line for each answer as soon as it is there.

    Raises:
        typer.Exit: With 1 at the end, if anything is wrong.
    """
    # What the clients of Azure log as an error they raise too, and then it is told in the line it belongs to.
    logging.getLogger("azure").setLevel(logging.CRITICAL)
    wrong = 0
    for one in found:
        wrong += one.verdict == WRONG
        print(f"{one.verdict:<9}  {one.what:<11}  {one.told}", flush=True)
        for line in one.more:
            print(f"{'':<9}  {'':<11}  {line}")
    if wrong:
        raise typer.Exit(1)
