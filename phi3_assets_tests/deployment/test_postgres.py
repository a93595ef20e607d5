"""The graph on an instance that stores in PostgreSQL, as a deployment's does, while PostgreSQL goes and comes back.

Their runs carry canaries: a token in the environment, a password in the recipe, a key in a row, PostgreSQL's password.
"""

import base64
import shutil
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import dagster as dg

from phi3_assets.core.recipe_file import RECIPES_DIR
from phi3_assets.resources.local_ledger import LocalLedger
from phi3_assets.resources.pointers import latest
from phi3_assets.steps import STEPS
from phi3_assets_tests.canaries import IN_A_ROW, IN_THE_ENVIRONMENT, IN_THE_RECIPE, found_in
from phi3_assets_tests.conftest import clean_env, write_rows
from phi3_assets_tests.deployment.postgres import PASSWORD, dagster_home
from phi3_assets_tests.tiny_graph import PHI3, TINY, gone, phi3, wait_for_training

SECRETS = (IN_A_ROW, IN_THE_ENVIRONMENT, IN_THE_RECIPE, PASSWORD)


def pointers(home):
    return {name: asdict(latest(LocalLedger(home / "ledger"), "operations-desk", name)) for name in STEPS}


def deployed(home, postgres) -> dict[str, str]:
    """The environment of a process of a deployment."""
    tokens = dict.fromkeys(("HF_TOKEN", "AZURE_CLIENT_SECRET", "MLFLOW_TRACKING_PASSWORD"), IN_THE_ENVIRONMENT)
    folder = dagster_home(home / ".dagster")
    return clean_env(DAGSTER_HOME=str(folder), PHI3_LOGS=str(home / "logs"), **postgres.environment, **tokens)


class Run:
    """`phi3 run` in a process of its own, what it says in a file; ended when the test ends."""

    def __init__(self, home, env, *arguments: str) -> None:
        self._said = home.parent / "said-by-run.log"
        command = [*PHI3, "run", *arguments, "--home", str(home)]
        self.process = subprocess.Popen(command, env=env, stdout=self._said.open("w"), stderr=subprocess.STDOUT)

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def said(self) -> str:
        return self._said.read_text()

    def wait_for_training(self, home):
        deadline = time.monotonic() + 120
        while not list((home / "work" / "lora_adapter").glob("*/worker.log")):
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.2)
        return wait_for_training(home)


def test_a_restart_of_postgresql_in_the_midst_of_a_run_changes_nothing(postgres, made_home, tmp_path, monkeypatch):
    """Dagster opens a connection for each event; one that is cut off, or refused, fails the run unless asked again."""
    home = tmp_path / "home"
    shutil.copytree(made_home / "datasets", home / "datasets")
    env = deployed(home, postgres)
    with Run(home, env, *TINY) as run:
        run.wait_for_training(home)
        postgres.stop()
        postgres.start()
        assert run.process.wait(timeout=200) == 0, run.said
    assert pointers(home) == pointers(made_home)  # the same bytes, with another book
    assert list(home.rglob("*.db")) == []
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.from_config(env["DAGSTER_HOME"]) as instance:
        for name in STEPS:
            events = instance.fetch_materializations(dg.AssetKey(name), limit=10).records
            assert len(events) == 1, name
            assert events[0].asset_materialization.tags["dagster/data_version"] == pointers(home)[name]["digest"]
        (told,) = instance.get_runs()
        assert told.status == dg.DagsterRunStatus.SUCCESS


class _Closed(SimpleHTTPRequestHandler):
    """Files for whoever knows the password."""

    def do_GET(self):
        wanted = base64.b64encode(f"reader:{IN_THE_RECIPE}".encode()).decode()
        if self.headers.get("Authorization") == f"Basic {wanted}":
            super().do_GET()
        else:
            self.send_error(401)

    def log_message(self, *_):
        """Nothing."""


@contextmanager
def served(folder):
    """A folder over HTTP; gives the address with user and password."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Closed, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://reader:{IN_THE_RECIPE}@127.0.0.1:{server.server_port}"
        server.shutdown()


def test_postgresql_stays_away_and_the_next_run_goes_on_and_tells_no_secret(postgres, tmp_path):
    """The run cannot write what it did, so it ends, and its workers; what it had finished is reused by the next."""
    home, rows = tmp_path / "home", tmp_path / "own" / "rows"
    rows.mkdir(parents=True)
    write_rows(rows / "codes.csv")
    with (rows / "codes.csv").open("a", encoding="utf-8") as file:
        file.write(f"Which token does the build use?,It is {IN_A_ROW} for now.\n")
    env = deployed(home, postgres)
    with served(rows) as address:
        recipe = rows.parent / "closed.yaml"
        recipe.write_text((RECIPES_DIR / "tiny-test.yaml").read_text() + f"dataset_path: {address}\n")
        with Run(home, env, "--recipe", str(recipe)) as run:
            processes = run.wait_for_training(home)
            postgres.stop()
            assert run.process.wait(timeout=200) == 1, run.said
        assert gone(processes)
        doctor = phi3("doctor", home=home, env=env)
        assert doctor.returncode == 1
        assert "wrong      instance" in doctor.stdout
        assert "Connection refused" in doctor.stdout
        postgres.start()
        again = phi3("run", "--recipe", str(recipe), home=home, env=env)
    assert again.returncode == 0, again.stdout
    assert "1 row" in again.stdout
    well = phi3("doctor", home=home, env=env)
    assert well.returncode == 0, well.stdout
    assert "ok         storage      PostgresEventLogStorage" in well.stdout
    # Nowhere: no log, artefact, page or event, and nothing that was said.
    (home / "said.log").write_text(doctor.stdout + again.stdout + well.stdout + postgres.dump())
    assert found_in(tmp_path, SECRETS, but_for=rows.parent) == []
