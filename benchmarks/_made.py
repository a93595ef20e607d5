"""Artefacts that a benchmark measures, made by `phi3 run` unless they stand."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phi3_assets.resources.local_store import LocalArtifactStore
from phi3_assets.resources.pointers import latest


def made(
    home: Path, recipe: str, product: str, kinds: Sequence[str], fields: Mapping[str, Any] | None = None
) -> dict[str, Path]:
    """Folders of the artefacts, by kind, that the recipe with these fields calls for; what is missing is made.

    Args:
        home: PHI3_HOME.
        recipe: Name or path.
        product: Whose test set and pointers; artefacts are shared.
        kinds: The last one is what is asked for.
        fields: Of the recipe, that replace its own.

    Raises:
        subprocess.CalledProcessError: It failed; it has said why.
    """
    given = [f"--set={name}={value}" for name, value in {"product": product, **(fields or {})}.items()]
    command = [sys.executable, "-m", "phi3_assets.cli.app", "run", "--home", str(home), "--recipe", recipe, *given]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([*command, "--to", kinds[-1]], check=True, stdout=sys.stderr, env=environment)
    store = LocalArtifactStore(home=str(home))
    folders = {}
    for kind in kinds:
        ref = latest(store.ledger, product, kind)
        assert ref is not None, "phi3 run made it"
        folders[kind] = store.fetch(ref)
    return folders
