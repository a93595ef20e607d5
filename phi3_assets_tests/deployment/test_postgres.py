"""The graph on an instance that stores in PostgreSQL, as a deployment's does, while PostgreSQL is restarted."""

import shutil
import subprocess
from dataclasses import asdict

import dagster as dg

from phi3_assets.resources.local_ledger import LocalLedger
from phi3_assets.resources.pointers import latest
from phi3_assets.steps import STEPS
from phi3_assets_tests.conftest import CANARY_SECRET, clean_env
from phi3_assets_tests.deployment.postgres import PASSWORD, dagster_home
from phi3_assets_tests.tiny_graph import PHI3, TINY, gone, phi3, wait_for_training

PRODUCT = "operations-desk"


def pointers(home):
    return {name: asdict(latest(LocalLedger(home / "ledger"), PRODUCT, name)) for name in STEPS}


def deployed(home, postgres, **more: str) -> dict[str, str]:
    return clean_env(
        DAGSTER_HOME=str(dagster_home(home / ".dagster")), PHI3_LOGS=str(home / "logs"), **postgres.environment, **more
    )


def new_home(tmp_path, made_home):
    home = tmp_path / "home"
    shutil.copytree(made_home / "datasets", home / "datasets")
    return home


def test_a_restart_of_postgresql_in_the_midst_of_a_run_changes_nothing(postgres, made_home, tmp_path, monkeypatch):
    """Dagster opens a connection for each event; one that is cut off, or refused, fails the run unless asked again."""
    home = new_home(tmp_path, made_home)
    env = deployed(home, postgres, HF_TOKEN=CANARY_SECRET)
    run = subprocess.Popen(
        [*PHI3, "run", *TINY, "--home", str(home)], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wait_for_training(home)
    postgres.stop()
    postgres.start()
    said, _ = run.communicate(timeout=200)
    assert run.returncode == 0, said
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
    # A secret is neither in the book nor in anything else that the run left behind.
    for secret in (CANARY_SECRET, PASSWORD):
        assert secret not in postgres.dump()
        assert secret not in said
        for path in home.rglob("*"):
            assert not path.is_file() or secret.encode() not in path.read_bytes(), path


def test_postgresql_stays_away_and_the_next_run_goes_on(postgres, made_home, tmp_path):
    """The run cannot tell what it did, so it ends, with its workers; what it had finished is reused by the next."""
    home = new_home(tmp_path, made_home)
    env = deployed(home, postgres)
    run = subprocess.Popen(
        [*PHI3, "run", *TINY, "--home", str(home)], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    processes = wait_for_training(home)
    postgres.stop()
    said, _ = run.communicate(timeout=200)
    assert run.returncode == 1, said
    assert gone(processes)
    doctor = phi3("doctor", home=home, env=env)
    assert "wrong      instance" in doctor.stdout
    assert "Connection refused" in doctor.stdout
    assert PASSWORD not in doctor.stdout
    assert doctor.returncode == 1
    postgres.start()
    again = phi3("run", *TINY, home=home, env=env)
    assert again.returncode == 0, again.stdout
    assert pointers(home) == pointers(made_home)
    well = phi3("doctor", home=home, env=env)
    assert well.returncode == 0, well.stdout
    assert "ok         storage      PostgresEventLogStorage" in well.stdout
