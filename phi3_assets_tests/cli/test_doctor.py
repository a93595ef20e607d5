"""`phi3 doctor` is true of this machine, and finds each fault that is put before it; `--version`, `recipes NAME`."""

import subprocess
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from phi3_assets import __version__
from phi3_assets.core.home import initialise
from phi3_assets.definitions import build_defs
from phi3_assets.resources import devices, doctor, runs
from phi3_assets_tests.canaries import IN_THE_ENVIRONMENT
from phi3_assets_tests.cli.test_hostile import small_disk
from phi3_assets_tests.conftest import clean_env
from phi3_assets_tests.tiny_graph import phi3

# Where a queued run comes from: Dagster takes none without.
ORIGIN = RemoteJobOrigin(
    RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("phi3_assets"), "__repository__"), "retrain"
)


@pytest.fixture
def laid_out(home, phi3_here) -> Path:
    """A home with Dagster's instance settled in it."""
    phi3_here("init", home=home)
    return home


def wrong_of(said: str) -> dict[str, str]:
    """What is told of all that is wrong, by question."""
    lines = [line.split(maxsplit=2) for line in said.splitlines() if line.startswith("wrong ")]
    return {what: told for _, what, told in lines}


def change_instance(home: Path, **settings: object) -> None:
    file = home / ".dagster" / "dagster.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **settings}))


def test_all_is_in_order_here_and_no_secret_is_told(made_home, phi3_here, monkeypatch):
    for name in ("HF_TOKEN", "AZURE_CLIENT_SECRET", "PHI3_PG_PASSWORD"):
        monkeypatch.setenv(name, IN_THE_ENVIRONMENT)
    said = phi3_here("doctor", home=made_home)
    assert wrong_of(said) == {}
    asked = [line[11:].split()[0] for line in said.splitlines()]
    assert asked == [
        *("machine", "gpu", "versions", "recipe", "home", "disk", "hub", "code", "instance", "storage", "queue"),
        *("pools", "daemon", "monitoring", "telemetry", "azure"),
    ]
    assert "at most 4 runs at once; 0 wait" in said
    assert IN_THE_ENVIRONMENT not in said


def test_a_home_that_is_not_there_yet_is_not_wrong_and_stays_so(tmp_path, phi3_here):
    said = phi3_here("doctor", home=tmp_path / "none")
    assert "is not there yet; `phi3 init`" in said
    assert not (tmp_path / "none").exists()


def test_a_small_disk_that_cannot_be_written(tmp_path, phi3_here):
    with small_disk(tmp_path / "disk", 4000) as disk:
        initialise(disk / "home")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        wrong = wrong_of(phi3_here("doctor", home=disk / "home", fails=True))
    assert wrong.keys() == {"home", "disk"}
    assert "cannot be written (Read-only file system)" in wrong["home"]
    assert "`phi3 gc` lists what nothing needs" in wrong["disk"]


def test_a_folder_that_is_no_home(tmp_path, phi3_here):
    (tmp_path / "thesis.doc").touch()
    assert "is no home: it holds other things" in wrong_of(phi3_here("doctor", home=tmp_path, fails=True))["home"]


def test_other_versions_than_the_lock_s(laid_out, tmp_path, phi3_here, monkeypatch):
    lock = doctor.PACKAGE.parent / "requirements.lock"
    (tmp_path / lock.name).write_text(lock.read_text().replace("transformers==5.23.0", "transformers==5.0.0"))
    monkeypatch.setattr(doctor, "PACKAGE", tmp_path / "phi3_assets")
    said = wrong_of(phi3_here("doctor", home=laid_out, fails=True))["versions"]
    assert f"other versions than {tmp_path / lock.name} says: transformers 5.23.0 for 5.0.0. `" in said


def test_a_gpu_that_torch_does_not_see(laid_out, tmp_path, phi3_here, monkeypatch):
    """A build for CPUs trains on the CPU without a word, twenty times slower."""
    (tmp_path / "gpus" / "0000:01:00.0").mkdir(parents=True)
    for module in (devices, doctor):
        monkeypatch.setattr(module, "GPUS", tmp_path / "gpus")
    said = wrong_of(phi3_here("doctor", home=laid_out, fails=True))["gpu"]
    assert "the driver shows 0, but torch 2.13.0" in said
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES='' hides those of this machine" in phi3_here("doctor", home=laid_out)


def test_a_hub_that_cannot_be_reached(laid_out):
    env = clean_env(PHI3_RECIPE="phi3-mini-lora", HF_ENDPOINT="http://127.0.0.1:9", HF_TOKEN=IN_THE_ENVIRONMENT)
    done = phi3("doctor", home=laid_out, env=env)
    assert done.returncode == 1
    assert wrong_of(done.stdout).keys() == {"hub"}
    assert "http://127.0.0.1:9 cannot be reached (ConnectError)" in done.stdout
    assert IN_THE_ENVIRONMENT not in done.stdout
    offline = phi3("doctor", home=laid_out, env={**env, "HF_HUB_OFFLINE": "1"})
    assert "not asked  hub          HF_HUB_OFFLINE forbids the network" in offline.stdout


def test_a_wrong_setting_is_told_and_the_rest_is_asked(laid_out, phi3_here, monkeypatch):
    monkeypatch.setenv("PHI3_EXECUTION", "locl")
    wrong = wrong_of(phi3_here("doctor", home=laid_out, fails=True))
    assert {"recipe", "home", "code", "settings"} <= wrong.keys()
    assert "Did you mean 'local'?" in wrong["recipe"]
    assert "instance" not in wrong


def test_what_azure_lacks_is_asked_too(laid_out, phi3_here, monkeypatch):
    monkeypatch.setenv("PHI3_AZURE_WORKSPACE", "desk")
    wrong = wrong_of(phi3_here("doctor", home=laid_out, fails=True))
    assert "missing: PHI3_AZURE_SUBSCRIPTION_ID" in wrong["settings"]


@pytest.mark.parametrize(
    ("settings", "question", "told"),
    [
        ({"telemetry": {"enabled": True}}, "telemetry", "`telemetry: {enabled: false}`"),
        ({"run_monitoring": {"enabled": False}}, "monitoring", "`run_monitoring: {enabled: true}`"),
        ({"storage": {"sqlit": {}}}, "instance", "sqlit"),
        ({"storage": {"postgres": {"postgres_url": {"env": "NOT_SET"}}}}, "instance", "NOT_SET"),
    ],
)
def test_an_instance_that_is_set_up_wrong(laid_out, phi3_here, settings, question, told):
    change_instance(laid_out, **settings)
    wrong = wrong_of(phi3_here("doctor", home=laid_out, fails=True))
    assert wrong.keys() == {question}
    assert told in wrong[question]


def test_runs_that_wait_for_nobody_and_runs_that_are_gone(laid_out, phi3_here):
    """Both look like work that goes on, for ever."""
    job = build_defs().resolve_job_def("retrain")
    with dg.DagsterInstance.from_config(str(laid_out / ".dagster")) as instance:
        gone = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
        waiting = instance.create_run_for_job(job, status=dg.DagsterRunStatus.QUEUED, remote_job_origin=ORIGIN)
        runs.runs_dir(laid_out).mkdir(parents=True, exist_ok=True)
        (runs.runs_dir(laid_out) / f"{gone.run_id}.lock").touch()
        wrong = wrong_of(phi3_here("doctor", home=laid_out, fails=True))
        assert wrong.keys() == {"daemon", "monitoring"}
        assert "1 runs wait in the queue, and nothing takes them out" in wrong["daemon"]
        assert gone.run_id in wrong["monitoring"]
        assert waiting.run_id not in wrong["monitoring"]
        assert instance.get_run_by_id(gone.run_id).status == dg.DagsterRunStatus.STARTED  # asked, and not mended


def test_version(phi3_here):
    assert phi3_here("--version").strip() == f"phi3-assets {__version__}"


def test_a_recipe_s_values_stand_beside_the_defaults(phi3_here):
    lines = {line.split()[0]: line for line in phi3_here("recipes", "smol-cpu").splitlines()}
    assert lines["int4_algorithm"].split()[1:3] == ["gptq", "default"]
    assert lines["method"].endswith("lora | dora | qlora | none")
    assert lines["test_share"].endswith("number, over 0, under 1")
    assert "Did you mean 'smol-cpu'?" in phi3_here("recipes", "smol-cp", fails=True)


def test_recipes_names_choices_and_ranges(phi3_here):
    said = phi3_here("recipes")
    assert "supervise  (answers | all; default: answers; of: formatted_corpus)" in said
    assert "lora_r  (whole number, at least 1; default: 64; of: lora_adapter)" in said
