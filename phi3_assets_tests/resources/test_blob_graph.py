"""The whole graph with its artefacts, ledger and claims in Azure Blob, steps on this machine, through `phi3`."""

import shutil

import pytest

from phi3_assets_tests.conftest import clean_env, write_rows
from phi3_assets_tests.tiny_graph import TINY, phi3

pytestmark = pytest.mark.azure


def test_a_home_that_was_lost_is_had_again_without_running_a_step(azure, home):
    env = clean_env(**azure.env, PHI3_STORE="azure_blob")
    made = phi3("run", *TINY, home=home, env=env)
    assert made.returncode == 0, made.stdout
    shutil.rmtree(home)
    (home / "datasets").mkdir(parents=True)
    write_rows(home / "datasets" / "codes.csv")
    azure.clear()
    again = phi3("run", *TINY, home=home, env=env)
    assert again.returncode == 0, again.stdout
    assert again.stdout.count("It stands already; nothing is run.") == 8
    assert "Champion of operations-desk: this release" in again.stdout
    assert azure.traffic("PUT", "blob", "/artefacts/") == []
    asked = phi3("chat", "What does code 7 mean?", "--max-new-tokens", "4", home=home, env=env)
    assert asked.returncode == 0, asked.stdout
    assert [path.name for path in (home / "gen-model").iterdir()] == ["onnx_int4_model"]  # of all, what was needed
    garbage = phi3("gc", "--keep-days", "0", "--delete", home=home, env=env)
    assert garbage.returncode == 0, garbage.stdout
    assert "nothing is removed there" in garbage.stdout
    assert list((home / "model-cache" / "peeked").glob("*/*/*")) == []
    assert azure.traffic("DELETE") == []
