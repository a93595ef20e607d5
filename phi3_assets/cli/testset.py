"""`phi3 testset`: what a product is tested with, and the ways to change it, each with a reason for the history."""

import getpass
import os
import shutil
from collections import Counter
from dataclasses import replace
from typing import Annotated

import typer

from phi3_assets.cli.options import Home, Product, Reason
from phi3_assets.core.home import SHORT, default_home

testset = typer.Typer(no_args_is_help=True, help="The frozen test sets of a product.")


@testset.command()
def show(product: Product = "", home: Home = None) -> None:
    """List the versions: state, rows, from which files, and how many of the rows are in the newest raw_dataset."""
    from io import BytesIO

    import pyarrow.parquet as pq

    from phi3_assets.cli.results import product_of, store_of
    from phi3_assets.core.lineage import artefacts
    from phi3_assets.data.testset import versions as sets

    home, product = home or default_home(), product_of(home, product)
    ledger = store_of(home).ledger
    versions = sets.read_versions(ledger, product)
    if not versions:
        print(f"Product {product} has no frozen test set yet; the first raw_dataset proposes one.")
        return
    newest = [folder for folder, manifest in artefacts(home).items() if manifest.call.step == "raw_dataset"][-1:]
    data = {
        row for folder in newest for row in pq.read_table(folder / "records.parquet", columns=["id"])["id"].to_pylist()
    }
    for version in versions:
        table = pq.read_table(BytesIO(sets.read_bytes(ledger, product, version)), columns=["id", "file"])
        here = sum(row in data for row in table["id"].to_pylist())
        files = Counter(name for name in table["file"].to_pylist() if name)
        print(f"{version.file}  {version.state}, frozen {version.at}")
        print(f"    {version.rows} rows, {here} of them in the newest raw_dataset, {version.forgotten} forgotten")
        print(f"    from {', '.join(f'{name} ({count})' for name, count in files.most_common(8))}")
        if version.reason:
            print(f"    retired by {version.by}: {version.reason}")
    for entry in sets.read_history(ledger, product):
        by = f" by {entry['by']}" if entry.get("by") else ""
        why = f": {entry['reason']}" if entry.get("reason") else ""
        print(f"{entry['at']} {entry['action']}{by}, {', '.join(entry['versions'])}{why}")


@testset.command()
def retire(reason: Reason, product: Product = "", home: Home = None) -> None:
    """Test no longer with the present test set; the next raw_dataset proposes one from the present data.

    What was tested with is never trained on, retired or not.
    """
    from phi3_assets.cli.results import product_of, store_of
    from phi3_assets.data.testset import versions as sets

    product = product_of(home, product)
    retired = sets.retire(store_of(home).ledger, product, reason, _who())
    print(
        f"Retired test set {retired.file} of product {product}, {retired.rows} rows: they are still never trained on. "
        "The next run proposes a test set from its data; a champion is compared on the rows that both were tested with."
    )


@testset.command()
def forget(
    reason: Reason,
    ids: Annotated[list[str], typer.Option("--id", help="Id of a record, whole; may be repeated.")] = [],  # noqa: B006
    match: Annotated[str, typer.Option(help="Regular expression, looked for in every message.")] = "",
    groups: Annotated[list[str], typer.Option("--group", help="Value of the group column.")] = [],  # noqa: B006
    product: Product = "",
    home: Home = None,
) -> None:
    """Erase a person's rows from every version of the test set, and name what was made from data that held them.

    Their hashes stay, so that they are never trained on. No text of theirs is shown. Files in datasets/ are yours.
    """
    from phi3_assets.cli.results import product_of, store_of
    from phi3_assets.core.lineage import artefacts, made_from
    from phi3_assets.data.judge.forget import Wanted, erase, holds
    from phi3_assets.data.testset import versions as sets
    from phi3_assets.release.champion import Champion

    home, product = home or default_home(), product_of(home, product)
    wanted = Wanted(frozenset(ids), match, frozenset(groups))
    erased_ids: set[str] = set()

    def without(content: bytes) -> tuple[bytes, int]:
        new, rows, theirs = erase(content, wanted)
        erased_ids.update(theirs)
        return new, rows

    changed = sets.replace_bytes(store_of(home).ledger, product, without, reason, _who())
    # Copies of what stood before. Nothing but a step that is running now needs one, and that is told.
    shutil.rmtree(home / "work" / sets.ROOM, ignore_errors=True)
    for old, new in changed:
        print(f"{old.file}: {new.forgotten - old.forgotten} rows erased; it is {new.file} now.")
    if not changed:
        print(f"No test set of product {product} holds such a row.")
    wanted = replace(wanted, ids=wanted.ids | erased_ids)
    snapshots = {old.after for old, _ in changed} - {None}
    every = artefacts(home)
    roots = [
        manifest
        for folder, manifest in every.items()
        if manifest.call.step == "raw_dataset"
        and (
            manifest.call.inputs.get("test_sets") in snapshots
            or holds(folder, wanted, manifest.call.params.get("group_column", ""))
        )
    ]
    touched = made_from(every.values(), roots)
    print(f"{len(touched)} artefacts were made from data or test sets that held such rows" + (":" if touched else "."))
    for manifest in touched:
        print(f"    {manifest.call.step} {manifest.call.identity[:SHORT]}")
    entry = Champion(store_of(home).ledger, product).present()
    if entry is not None and entry.release is not None and entry.release.identity in {m.call.identity for m in touched}:
        print(f"The champion {entry.release.identity[:SHORT]} is one of them: retire it or replace it by a retrain.")
    if touched:
        print(
            "Take the rows out of datasets/ and run again, then remove these artefacts with `phi3 gc`. Copies of rows "
            "are also in the caches raw_dataset and formatted_corpus of model-cache/downloads, which may be deleted."
        )


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"
