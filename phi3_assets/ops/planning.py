"""What a materialisation would do: which artefact is called for, whether it stands, and if not, what changed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from phi3_assets import steps
from phi3_assets.core.errors import UserError
from phi3_assets.core.home import SHORT
from phi3_assets.core.manifest import ArtefactRef, Manifest, digest_of, fingerprint
from phi3_assets.core.recipe import Recipe, is_hub_id
from phi3_assets.core.step import Step, StepCall, installed_versions, sha256_of
from phi3_assets.data.testset import versions as test_sets
from phi3_assets.resources.execution import UserFiles
from phi3_assets.resources.recipe import RecipeResource
from phi3_assets.resources.store import ArtifactStore

Context = dg.OpExecutionContext | dg.AssetExecutionContext
# What travels between ops: plain JSON.
Record = dict[str, Any]


@contextmanager
def readable_errors() -> Iterator[None]:
    """Show a user's error as its text; retrying it would only fail again."""
    try:
        yield
    except UserError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error


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
        upstream: Pointer of each input artefact, by name.

    Returns:
        JSON: {"call", "inputs", "recipe", "reused", "why"}.
    """
    with readable_errors():
        recipe = recipe_resource.load()
        inputs: dict[str, ArtefactRef | UserFiles] = {name: ArtefactRef(**ref) for name, ref in upstream.items()}
        inputs.update(user_files(context, step, recipe, store))
        call = make_call(step, recipe, inputs)
        reused = store.find(step.name, call.identity) is not None
        if step is steps.RAW_DATASET and not reused:
            proposed = proposer_of_newest_test_set(recipe, inputs, store)
            if proposed is not None:
                call, inputs = proposed
                reused = True
        latest = store.load_pointer(f"latest/{step.name}")
        previous = store.find(latest["kind"], latest["identity"]) if latest and not reused else None
        why = "It stands already; nothing is run." if reused else what_changed(previous, call)
        context.log.info(f"{step.name} {call.identity[:SHORT]}: {why}")
    return {
        "call": call.to_dict(),
        "inputs": {name: to_json(item) for name, item in inputs.items()},
        "recipe": recipe_resource.recipe,
        "reused": reused,
        "why": why,
    }


def make_call(step: Step, recipe: Recipe, inputs: Mapping[str, ArtefactRef | UserFiles]) -> StepCall:
    """Everything the identity of this step is made of."""
    return StepCall(
        step=step.name,
        code_version=step.code_version,
        params=step.params(recipe),
        inputs={name: item.digest for name, item in inputs.items()},
        libraries=installed_versions(step.libraries),
    )


def proposer_of_newest_test_set(
    recipe: Recipe, inputs: Mapping[str, ArtefactRef | UserFiles], store: ArtifactStore
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
    call = make_call(steps.RAW_DATASET, recipe, earlier)
    if call.identity != newest.proposer or store.find(call.step, call.identity) is None:
        return None
    return call, earlier


def user_files(context: Context, step: Step, recipe: Recipe, store: ArtifactStore) -> dict[str, UserFiles]:
    """Folders of the user's that this step reads, pinned by their content.

    Raises:
        UserError: A folder is missing or empty.
    """
    if step is steps.RAW_DATASET:
        files = {"datasets": _pinned(store.datasets_path(recipe.dataset_path, context.log.info), "Dataset folder")}
        _adopt_test_sets(recipe, store)
        versions = test_sets.read_versions(store.ledger, recipe.product)
        snapshot = test_sets.lay_out(store.ledger, recipe.product, versions, store.home_path / "work" / test_sets.ROOM)
        if snapshot is not None:
            files["test_sets"] = UserFiles(*snapshot)
        return files
    if step is steps.LORA_ADAPTER and recipe.adapter_path:
        path = Path(recipe.adapter_path).expanduser().absolute()
        return {"adapter_directory": _pinned(path, "Adapter directory")}
    if step is steps.BASE_MODEL and ":" not in recipe.base_model and not is_hub_id(recipe.base_model):
        path = Path(recipe.base_model).expanduser().absolute()
        return {"base_model_directory": _pinned(path, "Base model directory")}
    return {}


def _adopt_test_sets(recipe: Recipe, store: ArtifactStore) -> None:
    """Take over what was frozen in this home before test sets stood in the ledger, where they belonged to a folder."""
    before = store.home_path / "fine-tuning" / "test_sets"
    test_sets.adopt(store.ledger, Recipe.model_fields["product"].default, before / "datasets")
    if recipe.dataset_path:
        test_sets.adopt(store.ledger, recipe.product, before / f"other-{sha256_of(recipe.dataset_path)[:SHORT]}")


def _pinned(path: Path, what: str) -> UserFiles:
    return UserFiles(path=path, digest=digest_of(fingerprint(path, what)))


def what_changed(previous: Manifest | None, call: StepCall) -> str:
    """One sentence: why the artefact that stands is not the one called for."""
    if previous is None:
        return "It has not been made in this home yet."
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
    return item.to_dict() if isinstance(item, ArtefactRef) else {"path": str(item.path), "digest": item.digest}


def from_json(value: dict[str, str]) -> ArtefactRef | UserFiles:
    """Inverse of `to_json`."""
    return UserFiles(path=Path(value["path"]), digest=value["digest"]) if "path" in value else ArtefactRef(**value)
