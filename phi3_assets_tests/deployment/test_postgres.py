"""The graph on an instance that stores in PostgreSQL, as a deployment's does, while PostgreSQL goes and comes back.

Their runs carry canaries: a token in the environment, a password in the recipe, a key in a row, PostgreSQL's password.
"""

import base64
import re
import shutil
import threading
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import dagster as dg
import pytest

from phi3_assets.core.recipe_file import RECIPES_DIR
from phi3_assets.resources.local_ledger import LocalLedger
from phi3_assets.resources.pointers import latest
from phi3_assets_tests.canaries import IN_A_ROW, IN_THE_ENVIRONMENT, IN_THE_RECIPE, found_in
from phi3_assets_tests.conftest import clean_env, write_rows
from phi3_assets_tests.deployment.postgres import PASSWORD, dagster_home
from phi3_assets_tests.tiny_graph import TINY, Run, gone, phi3, wait_for_training

MODELS = ("raw_dataset", "formatted_corpus", "base_model", "lora_adapter")
# Of the op that was cut off, or of the run where none of it could be written.
CUT_OFF = re.compile("What was made is kept and will be reused|Dagster's database cannot be reached")
SECRETS = (IN_A_ROW, IN_THE_ENVIRONMENT, IN_THE_RECIPE, PASSWORD)


def pointers(home, names):
    return {name: asdict(latest(LocalLedger(home / "ledger"), "operations-desk", name)) for name in names}


def deployed(home, postgres) -> dict[str, str]:
    """The environment of a process of a deployment."""
    tokens = dict.fromkeys(("HF_TOKEN", "AZURE_CLIENT_SECRET", "MLFLOW_TRACKING_PASSWORD"), IN_THE_ENVIRONMENT)
    folder = dagster_home(home / ".dagster")
    return clean_env(DAGSTER_HOME=str(folder), PHI3_LOGS=str(home / "logs"), **postgres.environment, **tokens)


def training(run: Run, home):
    """Its workers, in the midst of a training."""
    run.wait_for("Step lora_adapter .* runs in process")
    return wait_for_training(home)


def test_a_restart_of_postgresql_in_the_midst_of_a_run_loses_nothing(postgres, made_home, tmp_path, monkeypatch):
    """Dagster opens a connection for each event, and asks again where one is refused, but not where one is cut off.

    So the run goes on, or ends with a sentence; either way the next makes the same bytes.
    """
    home = tmp_path / "home"
    shutil.copytree(made_home / "datasets", home / "datasets")
    env = deployed(home, postgres)
    with Run(home, env, *TINY, "--to", "lora_adapter") as run:
        processes = training(run, home)
        postgres.stop()
        postgres.start()
        code = run.process.wait(timeout=100)
    assert code == 0 or (code == 1 and CUT_OFF.search(run.said)), run.said
    assert gone(processes)
    again = phi3("run", *TINY, "--to", "lora_adapter", home=home, env=env)
    assert again.returncode == 0, again.stdout
    # The same bytes, with another book.
    ours, theirs = (pointers(folder, MODELS) for folder in (home, made_home))
    assert ours == theirs
    assert list(home.rglob("*.db")) == []
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.from_config(env["DAGSTER_HOME"]) as instance:
        for name in MODELS:
            events = instance.fetch_materializations(dg.AssetKey(name), limit=10).records
            told = {event.asset_materialization.tags["dagster/data_version"] for event in events}
            assert told == {ours[name]["digest"]}, name
        last, first = instance.get_runs()
        assert last.status == dg.DagsterRunStatus.SUCCESS
        assert first.status == (dg.DagsterRunStatus.FAILURE if code else dg.DagsterRunStatus.SUCCESS)


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


@pytest.mark.slow
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
            processes = training(run, home)
            postgres.stop()
            assert run.process.wait(timeout=200) == 1, run.said
            assert CUT_OFF.search(run.said), run.said
            assert "Traceback" not in run.said, run.said
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
    # Nowhere: no log, artefact, page or event, and nothing that was said; but for what was fetched of the user's own.
    (home / "said.log").write_text(doctor.stdout + again.stdout + well.stdout + postgres.dump())
    assert found_in(tmp_path, SECRETS, rows.parent, home / "model-cache" / "downloads" / "datasets") == []
