"""What `phi3` does with results: talk to a model, look after the champion, hand out bundles, convert configurations."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from phi3_assets.cli.options import Home, Overrides, Product, Reason, RecipeName, parse_overrides
from phi3_assets.cli.web import Port, serve_pages
from phi3_assets.core.errors import UserError
from phi3_assets.core.home import default_home

if TYPE_CHECKING:
    from phi3_assets.release.champion import Champion, Check
    from phi3_assets.release.history import Entry

champion = typer.Typer(no_args_is_help=True, help="The release that is to be taken, and who it replaced.")
bundle = typer.Typer(no_args_is_help=True, help="Releases, as folders that stand by themselves.")
config = typer.Typer(no_args_is_help=True, help="Configurations of plain Olive, old ones in and current ones out.")


def chat(
    question: Annotated[str, typer.Argument(help="One question; without it, a conversation.")] = "",
    variant: Annotated[str, typer.Option(help="base, adapter, merged or int4.")] = "int4",
    file: Annotated[Path | None, typer.Option(help="Questions, .txt or .jsonl; needs --out.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the answers to --file go, .jsonl.")] = None,
    system: Annotated[str | None, typer.Option(help="System prompt; default: the one it was trained with.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.", min=1)] = 256,
    web: Annotated[bool, typer.Option("--web", help="A page in the browser, with the variants side by side.")] = False,
    port: Port = None,
    release: Annotated[
        str, typer.Option(help="Another release than the champion: its identity, how it begins, or a bundle's folder.")
    ] = "",
    latest: Annotated[bool, typer.Option("--latest", help="What was made last, not the champion.")] = False,
    product: Product = "",
    home: Home = None,
) -> None:
    """Talk to the champion, or a release by name: a conversation, one question, a file, or a page in the browser."""
    from phi3_assets.chat import terminal
    from phi3_assets.chat.engines import INPUTS, check_variant, open_engine
    from phi3_assets.chat.serving import LATEST, Which
    from phi3_assets.cli.results import asked_of

    if variant not in INPUTS:
        check_variant(variant, {})
    if latest and release:
        raise UserError("--latest is what was made last, --release names one: give one of them.")
    which = Which(product, LATEST if latest else release)
    if web:
        from phi3_assets.chat.page import Settings

        if question or file or out:
            raise UserError("--web takes its questions in the browser: leave out the question, --file and --out.")
        asked_of(home, which, fetched=())  # a release that there is not is told now
        serve_pages(home, Settings(variant, system, max_new_tokens, which), port, "/chat/")
        return
    found = asked_of(home, which, variant, fetched=INPUTS[variant])
    system = found.system_prompt if system is None else system
    engine = open_engine(variant, found.directories)
    print(f"Asking {variant} of {found.told}.", file=sys.stderr)
    if file is not None:
        if out is None:
            raise UserError("--file needs --out, the file for the answers.")
        count = terminal.answer_file(engine, file, out, system_prompt=system, max_new_tokens=max_new_tokens)
        print(f"{count} answers in {out}.")
    elif question:
        terminal.ask(engine, question, system_prompt=system, max_new_tokens=max_new_tokens)
    else:
        terminal.converse(engine, system_prompt=system, max_new_tokens=max_new_tokens)


def lineage(
    release: Annotated[
        str, typer.Argument(help="Identity, or how it begins, or a bundle's folder; without it, the champion.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="All that is known, as JSON.")] = False,
    product: Product = "",
    home: Home = None,
) -> None:
    """Tell where a release comes from: artefacts, files with digests and rows, recipe, code and versions."""
    from phi3_assets.cli.results import tell_origin

    print(tell_origin(home, product, release, as_json=as_json))


def gc(
    delete: Annotated[bool, typer.Option("--delete", help="Remove it; without this, it is only listed.")] = False,
    keep_days: Annotated[float, typer.Option(help="Keep what was made or worked on within so many days.", min=0)] = 14,
    home: Home = None,
) -> None:
    """List what no champion of any time, no latest artefact and no running run needs; --delete removes it."""
    from phi3_assets.cli.runner import collect_garbage

    collect_garbage(home, keep_days, delete)


@champion.command()
def show(product: Product = "", home: Home = None) -> None:
    """Name the champion and why it is."""
    from phi3_assets.cli.results import champion_of, store_of

    found = champion_of(home, product)
    entry = found.present()
    if entry is None or entry.release is None:
        print(f"{found.product} has no champion; the next release that is fit becomes it.")
        return
    print(f"{found.product}: {store_of(home).where(entry.release)}\nsince {entry.at}: {entry.sentence}")


@champion.command()
def history(product: Product = "", home: Home = None) -> None:
    """List every decision of the gate and of people, refusals included, oldest first."""
    from phi3_assets.cli.results import champion_of
    from phi3_assets.core.home import SHORT

    for entry in champion_of(home, product).history():
        release = entry.release.identity[:SHORT] if entry.release else "-" * SHORT
        print(f"{entry.number:3} {entry.at} {entry.action:8} {release} {entry.sentence}")


@champion.command()
def approve(
    reason: Reason,
    release: Annotated[str, typer.Argument(help="Identity, or how it begins; without it, the only one.")] = "",
    product: Product = "",
    home: Home = None,
) -> None:
    """Make a release the champion that the gate found better and that waits for a person (promotion: approval)."""
    _change(home, product, lambda found, check: found.approve(release, reason, check=check))


@champion.command()
def rollback(reason: Reason, product: Product = "", home: Home = None) -> None:
    """Make the champion before this one champion again."""
    _change(home, product, lambda found, check: found.rollback(reason, check=check))


@champion.command()
def retire(reason: Reason, product: Product = "", home: Home = None) -> None:
    """Have no champion from now on; the next release that is fit becomes it."""
    _change(home, product, lambda found, check: found.retire(reason))


def _change(home: Path | None, product: str, change: "Callable[[Champion, Check], Entry]") -> None:
    from phi3_assets.cli.results import change_champion

    print(change_champion(home, product, change))


@bundle.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="The bundle.")],
    key: Annotated[Path | None, typer.Option(help="The maker's public key, PEM.")] = None,
) -> None:
    """Check every byte of a bundle, and its signature if a key is given."""
    from phi3_assets.release.bundle import verify_bundle

    release = verify_bundle(folder, key)
    print(f"{folder} is whole: {len(release['files'])} files{', signature fits' if key else ''}.")


@bundle.command()
def export(
    target: Annotated[Path, typer.Argument(help="Folder to write; must not exist.")],
    key: Annotated[Path | None, typer.Option(help="Private key to sign with, PEM.")] = None,
    product: Product = "",
    home: Home = None,
) -> None:
    """Copy the champion out of the store, and sign it if a key is given."""
    from phi3_assets.cli.results import champion_of, release_of, store_of
    from phi3_assets.release.signature import export_bundle

    # Not the newest release: that one may be worse, or rolled back from.
    release = release_of(champion_of(home, product))
    print(f"{export_bundle(store_of(home).fetch(release, content=True), target, key)} is ready to be handed out.")


@config.command(name="export")
def export_config(
    out: Annotated[Path, typer.Option(help="Folder to write; must not exist.")],
    recipe: RecipeName = "",
    overrides: Overrides = [],  # noqa: B006 - Typer's way
    home: Home = None,
) -> None:
    """Write a recipe as a configuration that plain `olive run` executes: fine-tune, merge, quantise."""
    from phi3_assets.cli.runner import export_olive_config

    if out.exists():
        raise UserError(f"{out} exists and is not overwritten; move it or give another name.")
    path = export_olive_config(home or default_home(), recipe, parse_overrides(overrides), out)
    print(f"Wrote {path}. With this project's virtual environment: olive run --config {path}")


@config.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(help="Olive's configuration, .json or .yaml.")],
    out: Annotated[Path, typer.Option(help="Recipe to write.")],
    azure_out: Annotated[
        Path | None, typer.Option(help="Settings of Azure to write; default: beside the recipe, .azure.yaml.")
    ] = None,
) -> None:
    """Make a recipe of an Olive configuration, old or new, and say what became of every key.

    Its AzureML blocks become settings of Azure in a file of their own.
    """
    from phi3_assets.olive.legacy import import_config
    from phi3_assets.olive.legacy_azure import run_command, settings_yaml

    azure_out = azure_out or out.with_suffix(".azure.yaml")
    imported = import_config(file)
    imported.name_product(out.stem)
    has_settings = bool(imported.settings or imported.blanks)
    written = [out, azure_out] if has_settings else [out]
    for path in written:
        if path.exists():
            raise UserError(f"{path} exists and is not overwritten; move it or give another name.")
    print(imported.report_markdown())
    command = run_command(str(out), str(azure_out) if has_settings else "", imported.executions)
    out.write_text(imported.recipe_yaml(command), encoding="utf-8")
    if has_settings:
        azure_out.write_text(settings_yaml(imported.settings, imported.blanks, command), encoding="utf-8")
    print(f"Wrote {' and '.join(str(path) for path in written)}. Run it with: {command}")
    for name, why in imported.missing.items():
        print(f"To be filled in first: {name}: {why}.")
    if imported.blanks:
        print(f"Fill in {', '.join(imported.blanks)} in {azure_out}; then try `phi3 azure check`.")
    if imported.unknown:
        told = f"{len(imported.unknown)} keys are unknown or have a value that is not taken"
        print(f"{told}; the recipe may not say what they meant.", file=sys.stderr)
        raise typer.Exit(1)
