"""PHI3_HOME: the folder a team works in, in the layout of Microsoft's Phi-3 cookbook.

datasets/      your csv, json, jsonl and parquet files
fine-tuning/   raw_dataset/ and formatted_corpus/: what training is fed with
model-cache/   downloads, and base_model/
gen-model/     lora_adapter/, merged_model/, onnx_int4_model/, eval_report/, release_bundle/
ledger/        what changes: of each product its champion, decisions, frozen test sets and latest artefacts
inferences/    adapter.py, merged.py, int4.py: plain scripts for the three ways to infer, yours to change
ledger/        what changes: pointers, frozen test sets, decisions
setup/         what a worker needs elsewhere
work/          unfinished work: checkpoints, logs of running steps, locks; may be deleted when nothing runs
"""

import os
import shutil
import socket
from contextlib import suppress
from pathlib import Path
from uuid import UUID, uuid4, uuid5

FOLDERS = ("datasets", "fine-tuning", "model-cache", "gen-model", "inferences", "ledger", "setup", "work")
PACKAGE = Path(__file__).parents[1]
SAMPLE = PACKAGE / "sample"
EXAMPLES = PACKAGE / "chat" / "examples"
DAGSTER_YAML = PACKAGE / "dagster.yaml"
# Sixteen hex digits in a path are short enough to read; the manifest holds all 64 and is checked.
SHORT = 16


def default_home() -> Path:
    """PHI3_HOME, else ./home."""
    return Path(os.environ.get("PHI3_HOME") or "home").expanduser().absolute()


def artefact_dir(home: Path, folder: str, kind: str, identity: str) -> Path:
    """Where the artefact of this identity stands, or will; `folder` is its step's."""
    return home / folder / kind / identity[:SHORT]


def work_dir(home: Path, kind: str, identity: str) -> Path:
    """Where the step of this identity works; nothing else ever writes there."""
    return home / "work" / kind / identity[:SHORT]


def claim_path(work: Path) -> Path:
    """The lock of a work directory: whoever holds it may write there and make the artefact, or remove either."""
    return work.with_name(f"{work.name}.lock")


def home_id(home: Path) -> UUID:
    """Names this home on this machine to whoever shares a store with it; a copied home, or a moved one, is another."""
    path = home / "work" / "home-id"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".home-id-{uuid4().hex}")
        new.write_text(str(uuid4()), encoding="ascii")
        with suppress(FileExistsError):  # another process was faster
            os.link(new, path)
        new.unlink()
    return uuid5(UUID(path.read_text(encoding="ascii")), f"{socket.gethostname()} {home}")


def initialise(home: Path) -> bool:
    """Lay out a new home with the sample dataset and the scripts of `inferences`; an existing home is left alone.

    Returns:
        True when a home was made.
    """
    if home.exists() and any(home.iterdir()):
        return False
    for name in FOLDERS:
        (home / name).mkdir(parents=True, exist_ok=True)
    for file in sorted(SAMPLE.glob("*.csv")):
        shutil.copy(file, home / "datasets" / file.name)
    for file in sorted(EXAMPLES.glob("[!_]*.py")):
        shutil.copy(file, home / "inferences" / file.name)
    return True


def prepare_home(home: Path) -> bool:
    """Lay out `home`, point PHI3_HOME and DAGSTER_HOME at it for this process, and settle Dagster's instance there.

    Returns:
        True when a home was made.
    """
    made = initialise(home)
    os.environ["PHI3_HOME"] = str(home)
    os.environ.setdefault("DAGSTER_HOME", str(home / ".dagster"))
    settings = Path(os.environ["DAGSTER_HOME"]) / "dagster.yaml"
    if not settings.exists():
        settings.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(DAGSTER_YAML, settings)
    return made
