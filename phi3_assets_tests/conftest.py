"""Shared by all tests: a home with a few rows, a store on it, and no trace of the tester's own settings."""

import csv
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from phi3_assets import steps
from phi3_assets.cli.app import main
from phi3_assets.core.home import initialise
from phi3_assets.core.manifest import digest_of, fingerprint
from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.core.step import StepCall, installed_versions
from phi3_assets.resources.execution import UserFiles
from phi3_assets.resources.local_store import LocalArtifactStore
from phi3_assets_tests.azure_standin.fixtures import azure, azure_session, clients  # noqa: F401
from phi3_assets_tests.made_once import made_once
from phi3_assets_tests.shared_server import SharedServerExecution
from phi3_assets_tests.tiny_graph import TINY, phi3

WHOLE_RUNS = (
    "test_atomicity.py",
    "test_azureml.py",
    "test_blob_graph.py",
    "test_faults.py",
    "test_graph.py",
    "test_orphans.py",
    "test_pages.py",
    "test_part_of_the_graph.py",
    "test_postgres.py",
    "test_retrains.py",
    "test_together.py",
    "test_workspace.py",
)
"""Modules whose tests take up to minutes each."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put whole runs at the beginning of each process's share, or all wait at the end for one that has two left.

    pytest-xdist hands out the tests in as many equal stretches as there are processes, which is what this goes by.
    """
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    whole = [item for item in items if item.path.name in WHOLE_RUNS]
    rest = [item for item in items if item.path.name not in WHOLE_RUNS]
    share, ordered = len(items) // processes, []
    for process in range(processes):
        ordered += whole[process::processes]
        length = len(rest) if process == processes - 1 else max(0, share * (process + 1) - len(ordered))
        ordered += rest[:length]
        del rest[:length]
    items[:] = ordered


os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:
    # Tests side by side: threads that wait for one another on the same cores make each of them several times slower.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _no_settings_of_the_testers(monkeypatch):
    azure_settings = [name for name in os.environ if name.startswith("PHI3_AZURE_")]
    own = ("PHI3_HOME", "PHI3_RECIPE", "PHI3_EXECUTION", "PHI3_STORE", "PHI3_WEB_PORT", "DAGSTER_HOME")
    for name in (*own, *azure_settings):
        monkeypatch.delenv(name, raising=False)


def write_rows(path: Path, rows: int = 40) -> None:
    """Questions and answers in the seed's columns: short, alike enough that even a tiny model learns something."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["Question", "Best Answer"])
        for number in range(rows):
            writer.writerow([f"What does code {number} mean?", f"Code {number} means ok."])


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A laid-out PHI3_HOME with 40 rows in one file."""
    return _laid_out(tmp_path / "home")


def _laid_out(home: Path) -> Path:
    initialise(home)
    for file in (home / "datasets").iterdir():
        file.unlink()
    write_rows(home / "datasets" / "codes.csv")
    return home


@pytest.fixture
def store(home: Path) -> LocalArtifactStore:
    return LocalArtifactStore(home=str(home))


def raw_dataset_call(store: LocalArtifactStore) -> tuple[StepCall, dict[str, UserFiles]]:
    """The cheapest real step: read the home's files."""
    step = steps.RAW_DATASET
    folder = store.datasets_path("")
    files = UserFiles(path=folder, digest=digest_of(fingerprint(folder, "Dataset folder")))
    call = StepCall(
        step=step.name,
        code_version=step.code_version,
        params=step.params(load_recipe("tiny-test")),
        inputs={"datasets": files.digest},
        libraries=installed_versions(step.libraries),
    )
    return call, {"datasets": files}


CANARY_SECRET = "hf_canary7Yc1qZ0secret"
CANARY_QUESTION = "Whose is the velvet kayak?"


@pytest.fixture(scope="session")
def made_home(tmp_path_factory) -> Path:
    """A home in which the whole graph was made on the tiny model, with `phi3 run`. Read it; copy it to change it."""
    return made_once(tmp_path_factory, "home", make_home)


def lay_out(home: Path) -> Path:
    """The rows of `made_home`, on what may be another machine; one question must be in no log."""
    _laid_out(home)
    with (home / "datasets" / "codes.csv").open("a", encoding="utf-8") as file:
        file.write(f"{CANARY_QUESTION},Mine.\n")
    return home


def make_home(home: Path) -> None:
    lay_out(home)
    done = phi3("run", *TINY, home=home, env=clean_env(HF_TOKEN=CANARY_SECRET))
    assert done.returncode == 0, done.stdout
    (home / "run.log").write_text(done.stdout)


@pytest.fixture
def copied_home(made_home, tmp_path) -> Path:
    """A copy of `made_home` to change."""
    return Path(shutil.copytree(made_home, tmp_path / "home"))


@pytest.fixture
def shared_execution(monkeypatch) -> None:
    """Runs in this process fork their workers from the tests' server."""
    monkeypatch.setattr("phi3_assets.definitions.LocalExecution", SharedServerExecution)


@pytest.fixture
def phi3_here(shared_execution, monkeypatch, capsys) -> Callable[..., str]:
    """The entry point of `phi3` in this process, for tests that ask what a command does and not what a process does.

    Takes the arguments and `home`; gives what was said. `fails`: it must end with an error, and otherwise must not.
    """

    def call(*arguments: str | Path, home: Path | None = None, fails: bool = False) -> str:
        at = [] if home is None else ["--home", home]
        if home is not None:  # both are set for the whole process, and must not stay
            monkeypatch.setenv("PHI3_HOME", str(home))
            monkeypatch.setenv("DAGSTER_HOME", str(home / ".dagster"))
        monkeypatch.setattr(sys, "argv", ["phi3", *map(str, [*arguments, *at])])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = "".join(capsys.readouterr())
        assert (ended.value.code == 1) if fails else not ended.value.code, said
        return said

    return call


def clean_env(**more: str) -> dict[str, str]:
    """This process's environment without the tester's own settings."""
    own = ("PHI3_", "DAGSTER_HOME")
    return {**{name: value for name, value in os.environ.items() if not name.startswith(own)}, **more}


@pytest.fixture
def instance():
    with dg.instance_for_test() as instance:
        yield instance
