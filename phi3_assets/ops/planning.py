"""What a materialisation would do: which artefact is called for, whether it stands, and if not, what changed."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from phi3_assets.core.errors import UserError
from phi3_assets.core.files import DATASETS
from phi3_assets.core.finding import Finding
from phi3_assets.core.home import SHORT
from phi3_assets.core.manifest import ArtefactRef, Manifest, digest_of, fingerprint
from phi3_assets.core.recipe import Recipe
from phi3_assets.core.recipe_data import DEFAULT_PRODUCT
from phi3_assets.core.step import Step, StepCall, installed_versions, sha256_of
from phi3_assets.core.web_address import page_url
from phi3_assets.data.read.remote import is_in_datastore, is_remote, remote_version
from phi3_assets.data.testset import versions as test_sets
from phi3_assets.ops.registering import refuse_unregistrable
from phi3_assets.ops.run_tags import DATA_VERSION_TAG, PRODUCT_TAG, RECIPE_TAG, tag_run
from phi3_assets.resources.execution import UserFiles, readable_errors
from phi3_assets.resources.lineage import lineage
from phi3_assets.resources.pointers import Record, latest, ref_of
from phi3_assets.resources.recipe import RecipeResource
from phi3_assets.resources.store import ArtifactStore
from phi3_assets.steps import STEPS

Context = dg.OpExecutionContext | dg.AssetExecutionContext


def make_plan(
    context: Context,
    step: Step,
    recipe_resource: RecipeResource,
    store: ArtifactStore,
    upstream: Mapping[str, Any],
) -> Record:
    """Say what this recipe and these inputs call for, whether it stands already, and if not, what changed.

    Args:
        context: Of the running op.
        step: The step.
        recipe_resource: This run's recipe.
        store: Where artefacts stand.
        upstream: Record of each input asset, by name; see `phi3_assets.resources.pointers`.

    Returns:
        JSON: {"call", "inputs", "recipe", "product", "planned", "data_version", "reused", "why"}; the data version is
        "" where the step reads no dataset folder.
    """
    planned = time.time()
    with readable_errors():
        recipe = recipe_resource.load()
        tag_run(context, {PRODUCT_TAG: recipe.product, RECIPE_TAG: recipe_resource.told()})
        refuse_unregistrable(recipe, store)
        calls = CalledFor(recipe, store, context.log.info, upstream)
        call, inputs = calls.call(step)
        version = ""
        if isinstance(data := inputs.get(DATASETS), UserFiles):
            # What it does read: the data may be another version than when the run was asked for.
            version = data_version(recipe.dataset_path, data)[:SHORT]
            tag_run(context, {DATA_VERSION_TAG: version})
        reused = store.find(step.name, call.identity) is not None
        previous = latest(store.ledger, recipe.product, step.name)
        before = store.find(previous.kind, previous.identity) if previous and not reused else None
        why = "It stands already; nothing is run." if reused else what_changed(before, call)
        context.log.info(f"{step.name} {call.identity[:SHORT]}: {why}")
    return {
        "call": call.to_dict(),
        "inputs": {name: to_json(item) for name, item in inputs.items()},
        "recipe": recipe_resource.told(),
        "product": recipe.product,
        "planned": planned,
        "data_version": version,
        "reused": reused,
        "why": why,
    }


class CalledFor:
    """Which artefacts a recipe calls for: those that this run made, and the others by what they would be made of.

    An artefact that is built on must keep the blocking rules of its kind, whoever made it and whatever its checks said
    then: rules and limits may be other ones today, and a run that selects one asset alone runs no check of the others.
    """

    def __init__(
        self, recipe: Recipe, store: ArtifactStore, log: Callable[[str], None], given: Mapping[str, Record]
    ) -> None:
        """`given` are the records of assets that the run made, by name; those it did not make say so."""
        self._recipe = recipe
        self._store = store
        self._log = log
        self._known = {name: ref_of(record) for name, record in given.items() if "identity" in record}
        self._judged: set[str] = set()

    def artefact(self, name: str) -> ArtefactRef:
        """The artefact of this name that the recipe calls for.

        Raises:
            UserError: It does not stand, or breaks a blocking rule.
        """
        if name not in self._known:
            call, _ = self.call(STEPS[name])
            manifest = self._store.find(name, call.identity)
            if manifest is None:
                raise UserError(
                    f"{name} does not stand as this recipe and these files call for it ({call.identity[:SHORT]}). "
                    f"Materialise {name} too: select it with this asset, or make it first."
                )
            self._known[name] = manifest.ref
        ref = self._known[name]
        if name not in self._judged:
            self._judged.add(name)
            refuse_if_unfit(self._store, ref, self._recipe)
        return ref

    def call(self, step: Step) -> tuple[StepCall, dict[str, ArtefactRef | UserFiles]]:
        """What the recipe calls for at this step.

        Raises:
            UserError: An artefact it is made of does not stand, breaks a rule, or is of another lineage.
        """
        inputs: dict[str, ArtefactRef | UserFiles] = {
            name: self.artefact(name) for name in step.inputs if name in STEPS
        }
        lineage(self._store, *(ref for ref in inputs.values() if isinstance(ref, ArtefactRef)))
        inputs.update(user_files(self._log, step, self._recipe, self._store))
        call = make_call(step, self._recipe, inputs)
        if step.reads_test_sets and self._store.find(step.name, call.identity) is None:
            proposed = proposer_of_newest_test_set(step, self._recipe, inputs, self._store)
            if proposed is not None:
                return proposed
        return call, inputs


def refuse_if_unfit(store: ArtifactStore, ref: ArtefactRef, recipe: Recipe) -> None:
    """Refuse to build on an artefact that breaks a blocking rule of its kind.

    Raises:
        UserError: Names the artefact, every rule it breaks, and its page if it has one.
    """
    broken = [finding for finding in judge(store, ref, recipe) if not finding.passed]
    if broken:
        told = [f"{finding.rule}: {finding.sentence}" for finding in broken]
        pages = (page_url(one.page, ref.identity) for one in STEPS[ref.kind].shows if one.kind == "page")
        told += [f"{page} shows it." for page in pages if page]
        raise UserError(f"{ref.kind} {ref.identity[:SHORT]} is not to be built on. {' '.join(told)}")


def judge(store: ArtifactStore, ref: ArtefactRef, recipe: Recipe) -> list[Finding]:
    """What the blocking rules of its kind say of an artefact; asked by its checks and by the plans of its consumers."""
    manifest = store.find(ref.kind, ref.identity)
    if manifest is None:
        raise UserError(f"{ref.kind} {ref.identity[:SHORT]} is gone from the store; materialise it again.")
    step = STEPS[ref.kind]
    return step.findings(manifest.metrics, store.peek(ref, *step.rules_read), recipe)


def make_call(step: Step, recipe: Recipe, inputs: Mapping[str, ArtefactRef | UserFiles]) -> StepCall:
    """Everything the identity of this step is made of."""
    digests = {name: item.digest for name, item in inputs.items()}
    if step.reads_manifests:
        digests |= {f"manifest of {name}": i.identity for name, i in inputs.items() if isinstance(i, ArtefactRef)}
    return StepCall(
        step=step.name,
        code_version=step.code_version,
        params=step.params(recipe),
        inputs=digests,
        libraries=installed_versions(step.libraries),
        settings=step.settings(recipe),
    )


def proposer_of_newest_test_set(
    step: Step, recipe: Recipe, inputs: Mapping[str, ArtefactRef | UserFiles], store: ArtifactStore
) -> tuple[StepCall, dict[str, ArtefactRef | UserFiles]] | None:
    """The `raw_dataset` of these very files that proposed the present test set, if it stands.

    It is what would come out of running the step again with that test set as input, unless anything was frozen, retired
    or forgotten since.
    """
    versions = test_sets.read_versions(store.ledger, recipe.product)
    newest = test_sets.present(versions)
    if newest is None or not newest.proposer or newest.after != test_sets.snapshot_digest(versions):
        return None
    earlier = {name: item for name, item in inputs.items() if name != "test_sets"}
    if newest.made_with is not None:
        folder = store.home_path / "work" / test_sets.ROOM / newest.made_with[:SHORT]
        earlier["test_sets"] = UserFiles(path=folder, digest=newest.made_with)
    call = make_call(step, recipe, earlier)
    if call.identity != newest.proposer or store.find(call.step, call.identity) is None:
        return None
    return call, earlier


def data_version(dataset_path: str, data: UserFiles) -> str:
    """Names the state of the dataset folder that a run reads, as the sensor names it."""
    return remote_version(dataset_path, data.path) if is_remote(dataset_path) else data.digest


def user_files(log: Callable[[str], None], step: Step, recipe: Recipe, store: ArtifactStore) -> dict[str, UserFiles]:
    """Folders of the user's that this step reads, pinned by their content.

    Raises:
        UserError: A folder is missing or empty.
    """
    files = {}
    for folder in step.reads:
        location = folder.location(recipe)
        if location is not None:
            path = store.datasets_path(location, log)
            digest = digest_of(fingerprint(path, folder.what, folder.name))
            files[folder.name] = UserFiles(path, digest, location if is_in_datastore(location) else "")
    if step.reads_test_sets:
        _adopt_test_sets(recipe, store)
        versions = test_sets.read_versions(store.ledger, recipe.product)
        snapshot = test_sets.lay_out(store.ledger, recipe.product, versions, store.home_path / "work" / test_sets.ROOM)
        if snapshot is not None:
            files["test_sets"] = UserFiles(*snapshot)
    return files


def _adopt_test_sets(recipe: Recipe, store: ArtifactStore) -> None:
    """Take over what was frozen in this home before test sets stood in the ledger, where they belonged to a folder."""
    before = store.home_path / "fine-tuning" / "test_sets"
    test_sets.adopt(store.ledger, DEFAULT_PRODUCT, before / "datasets")
    if recipe.dataset_path:
        test_sets.adopt(store.ledger, recipe.product, before / f"other-{sha256_of(recipe.dataset_path)[:SHORT]}")


def what_changed(previous: Manifest | None, call: StepCall) -> str:
    """One sentence: why the artefact that stands is not the one called for."""
    if previous is None:
        return "It has not been made yet."
    before, now = previous.call.to_dict(), call.to_dict()
    changes = []
    if before["code_version"] != now["code_version"]:
        changes.append(f"the step's code ({before['code_version']} to {now['code_version']})")
    for title, key in (("recipe", "params"), ("library", "libraries")):
        for name in sorted(before[key].keys() | now[key].keys()):
            old, new = before[key].get(name), now[key].get(name)
            if old != new:
                changes.append(f"{title} {name} ({old} to {new})")
    changes += [
        f"input {name}"
        for name in sorted(before["inputs"].keys() | now["inputs"].keys())
        if before["inputs"].get(name) != now["inputs"].get(name)
    ]
    return f"Made anew because of {', '.join(changes)}." if changes else "It is no longer in the store."


def to_json(item: ArtefactRef | UserFiles) -> dict[str, str]:
    """An input as it travels in a plan."""
    if isinstance(item, ArtefactRef):
        return item.to_dict()
    return {"path": str(item.path), "digest": item.digest, "remote": item.remote}


def from_json(value: dict[str, str]) -> ArtefactRef | UserFiles:
    """Inverse of `to_json`."""
    if "path" not in value:
        return ArtefactRef(**value)
    return UserFiles(Path(value["path"]), value["digest"], value.get("remote", ""))
