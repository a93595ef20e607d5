"""Materialises the graph from a terminal and tells how it goes, on the same Dagster instance that the UI shows."""

import logging
import os
import sys
import time
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg

from phi3_assets.cli.results import store_of
from phi3_assets.core.errors import UserError, nearest
from phi3_assets.core.home import prepare_home
from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.core.shown import PROGRESS, TIME_LEFT
from phi3_assets.evaluation.measured import EvaluationMetrics
from phi3_assets.evaluation.present import text_table
from phi3_assets.ops.run_tags import STARTED_BY_TAG
from phi3_assets.release.bundle import RELEASE, read_release
from phi3_assets.release.champion import Champion
from phi3_assets.resources.pointers import latest
from phi3_assets.resources.runs import end_dead_runs, hold_run, open_instance, show_in_timeline
from phi3_assets.resources.store import ArtifactStore
from phi3_assets.steps import BASE_MODEL, EVAL_REPORT, FORMATTED_CORPUS, RELEASE_BUNDLE, STEPS

INTERRUPT = dg.DagsterExecutionInterruptedError.__name__
# What is told of a running step beside how far it is, and as what it is observed.
_ON_THE_LINE = {"loss": PROGRESS["loss"], "tokens/s": "tokens_per_s"}
# Lines of Dagster's that tell a person at a terminal nothing.
_DAGSTERS_OWN = ("[pipes]", "Dependencies for step")


def run_graph(home: Path, recipe: str, overrides: dict[str, Any], to: str = "") -> int:
    """Materialise assets in this process; steps run in processes of their own.

    Args:
        home: PHI3_HOME.
        recipe: Name or path; "" for the default.
        overrides: Recipe fields to replace.
        to: The last asset to make, by name; "" for all.

    Returns:
        Exit code: 0 when everything stands and no blocking check failed, 130 when it was stopped.

    Raises:
        UserError: There is no such asset.
    """
    from phi3_assets.definitions import build_defs

    definitions = build_defs()
    keys = selected(definitions, to)
    if prepare_home(home):
        print(f"Laid out {home} with the sample dataset.")
    run_id = str(uuid.uuid4())
    given = {name: value for name, value in {"recipe": recipe, **overrides}.items() if value != "" or name in overrides}
    with open_instance(Path(os.environ["DAGSTER_HOME"])) as instance:
        end_dead_runs(instance, home, definitions.resolve_all_job_defs())
        hold_run(home, run_id)
        narrator = Narrator()
        instance.add_event_listener(run_id, narrator.tell)
        instance.add_event_listener(run_id, partial(_when_started, instance))
        result = None
        try:
            result = definitions.resolve_job_def("retrain").execute_in_process(
                instance=instance,
                asset_selection=keys,
                run_config={
                    "resources": {"recipe": {"config": given}},
                    # The narrator speaks; Dagster's own console would repeat it at length.
                    "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
                },
                raise_on_error=False,
                run_id=run_id,
                tags={STARTED_BY_TAG: "phi3 run"},
            )
        except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):  # between two ops
            narrator.interrupted = True
        if narrator.interrupted:
            run = instance.get_run_by_id(run_id)
            assert run is not None
            instance.report_run_canceled(run)
    if narrator.interrupted:
        print("\nStopped. Nothing half-made was kept; `phi3 run` goes on from here.")
        return 130
    if result is None or not result.success:
        print("\nNot everything was made; the reason is above. What was made is kept and will be reused.")
        return 1
    store = store_of(home)
    product = load_recipe(recipe or None, overrides).product
    if to not in STEPS or to == RELEASE_BUNDLE.name:
        show_scores(store, product)
    else:
        made = latest(store.ledger, product, to)
        assert made is not None
        print(f"\n{to}: {store.where(made)}")
    return 0


def _when_started(instance: dg.DagsterInstance, entry: dg.EventLogEntry) -> None:
    if entry.dagster_event and entry.dagster_event.event_type == dg.DagsterEventType.RUN_START:
        show_in_timeline(instance, entry.run_id)


def selected(definitions: dg.Definitions, to: str) -> list[dg.AssetKey]:
    """Keys of the asset `to` and of all that it is made of; of all assets when `to` is empty.

    Raises:
        UserError: There is no such asset.
    """
    known = [*STEPS, "champion"]
    if to and to not in known:
        raise UserError(f"--to {to!r}: no such asset.{nearest(to, known)} The assets: {', '.join(known)}.")
    wanted = dg.AssetSelection.assets(to).upstream() if to else dg.AssetSelection.all()
    return sorted(wanted.resolve(definitions.resolve_asset_graph()))


def show_scores(store: ArtifactStore, product: str) -> None:
    """Print the four variants' scores, who is champion, and where to read on."""
    report, bundle = (latest(store.ledger, product, step.name) for step in (EVAL_REPORT, RELEASE_BUNDLE))
    assert report is not None
    assert bundle is not None
    manifest = store.find(report.kind, report.identity)
    assert manifest is not None
    measured = EvaluationMetrics.from_dict(manifest.metrics)
    print(f"\n{text_table(measured.variants)}\n")
    kept = measured.int4_gain_kept
    gain = (
        "fine-tuning gained nothing over base."
        if kept is None
        else f"int4 keeps {kept:.1%} of merged's gain over base."
    )
    print(f"{measured.items} held-out questions; {gain}")
    for sentence in read_release(store.peek(bundle, RELEASE)).get("certificate", []):
        print(f"Int4:     {sentence}")
    print(f"Report:   {store.where(report)}/report.html")
    print(f"Release:  {store.where(bundle)}")
    present = Champion(store.ledger, product).present()
    if present is not None and present.release is not None:
        told = "this release" if present.release == bundle else f"still {store.where(present.release)}"
        print(f"Champion of {product}: {told}")


def export_olive_config(home: Path, recipe: str, overrides: dict[str, Any], target: Path) -> Path:
    """Write a recipe as an Olive configuration; its corpus and base model are made first where they do not stand.

    Raises:
        UserError: They cannot be made.
    """
    import torch

    from phi3_assets.olive.export import export_config

    if run_graph(home, recipe, overrides, "formatted_corpus"):
        raise UserError("The configuration needs the corpus and the base model, and they could not be made; see above.")
    chosen = load_recipe(recipe or None, overrides)
    store = store_of(home)
    base_model, formatted_corpus = (
        store.fetch(made)
        for step in (BASE_MODEL, FORMATTED_CORPUS)
        if (made := latest(store.ledger, chosen.product, step.name))
    )
    return export_config(
        chosen,
        base_model,
        formatted_corpus,
        target,
        on_gpu=torch.cuda.is_available(),
    )


def collect_garbage(home: Path | None, keep_days: float, delete: bool) -> None:
    """Print what nothing in a home needs any more, and remove it if told to.

    Raises:
        UserError: There is no such home.
        DamagedArtefact: What is needed cannot be read.
    """
    from phi3_assets.resources import gc

    store = store_of(home)
    if not store.home_path.is_dir():
        raise UserError(f"There is no home at {store.home_path}. Name one with --home or PHI3_HOME.")
    if store.elsewhere:
        print("Artefacts stand elsewhere, and nothing is removed there; what goes here is fetched again when needed.")
    found = gc.find_garbage(store, keep_days, print)
    for item in found:
        print(f"{item.bytes / 1e6:12,.1f} MB  {item.what:11}  {item.path.relative_to(store.home_path)}")
    total = f"{len(found)} items, {sum(item.bytes for item in found) / 1e6:,.1f} MB"
    if not delete:
        print(f"{total} would go; nothing was removed. Remove them with: phi3 gc --delete")
        return
    removed = gc.collect(store, found)
    print(f"{len(removed)} of {total} were removed." + (" The others are in use." if len(removed) < len(found) else ""))


class Narrator:
    """Turns the run's events into a few lines that a person can follow."""

    def __init__(self) -> None:
        """The clock starts now."""
        self._start = time.monotonic()
        self._on_progress_line = False
        self.interrupted = False

    def tell(self, entry: dg.EventLogEntry) -> None:
        """Take one event of the run."""
        event = entry.dagster_event
        if event is None:
            if int(entry.level) >= logging.INFO and not entry.user_message.startswith(_DAGSTERS_OWN):
                self._line(entry.user_message)
        elif event.event_type == dg.DagsterEventType.ASSET_OBSERVATION:
            observation = event.asset_observation_data.asset_observation
            numbers = {name: value.value for name, value in observation.metadata.items()}
            self._progress(observation.asset_key.to_user_string(), numbers)
        elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            self._line(f"{'passed' if check.passed else 'FAILED'}: {check.check_name}. {check.description or ''}")
        elif event.event_type == dg.DagsterEventType.STEP_FAILURE:
            reason = reason_of(event.step_failure_data)
            # Dagster tells of an interrupt as of any other failure of the op that it hit.
            self.interrupted = self.interrupted or INTERRUPT in reason
            self._line(f"{'STOPPED' if INTERRUPT in reason else 'FAILED'} at {event.step_key}: {reason}")

    def _line(self, text: str) -> None:
        if self._on_progress_line:
            print()
            self._on_progress_line = False
        minutes, seconds = divmod(int(time.monotonic() - self._start), 60)
        print(f"[{minutes:2d}:{seconds:02d}] {text}", flush=True)

    def _progress(self, asset: str, numbers: dict[str, Any]) -> None:
        parts = [f"{numbers[PROGRESS['fraction']]:3.0f} %"] if PROGRESS["fraction"] in numbers else []
        parts += [f"{name} {numbers[shown]:.4g}" for name, shown in _ON_THE_LINE.items() if shown in numbers]
        if TIME_LEFT in numbers:
            parts.append(f"{numbers[TIME_LEFT]} left")
        if not parts:  # an observation of another kind, such as where its job is to be seen
            return
        text = f"        {asset} {', '.join(parts)}"
        if sys.stdout.isatty():  # one line that moves; in a log file it would be thousands
            print(f"\r{text:<100}", end="", flush=True)
            self._on_progress_line = True
        else:
            print(text, flush=True)


def reason_of(failure: Any) -> str:
    """A failed op's reason: what it said itself, else the first cause, which Dagster wraps in its own errors."""
    if failure.user_failure_data:
        return str(failure.user_failure_data.description)
    error = failure.error
    while error.cause:
        error = error.cause
    return str(error.message).strip()
