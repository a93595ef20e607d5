"""The whole graph with its artefacts, ledger and claims in Azure Blob, steps on this machine."""

import shutil

import pytest

from phi3_assets_tests.conftest import clean_env, write_rows
from phi3_assets_tests.tiny_graph import TINY, phi3

pytestmark = pytest.mark.azure


def test_a_home_that_was_lost_is_had_again_without_running_a_step(azure, home, tmp_path):
    env = clean_env(**azure.env, PHI3_STORE="azure_blob")
    made = phi3("run", *TINY, home=home, env=env)
    assert made.returncode == 0, made.stdout
    assert "champion" in made.stdout.lower()
    shutil.rmtree(home)
    home.mkdir()
    (home / "datasets").mkdir()
    write_rows(home / "datasets" / "codes.csv")
    azure.clear()
    again = phi3("run", *TINY, home=home, env=env)
    assert again.returncode == 0, again.stdout
    assert azure.traffic("PUT", "blob", "/artefacts/") == []
    weights = [
        one["path"] for one in azure.traffic("GET", "blob", "/artefacts/") if one["path"].endswith(".safetensors")
    ]
    assert weights == []
    print(again.stdout)
    asked = phi3("champion", "show", home=home, env=env)
    assert asked.returncode == 0, asked.stdout
    print(asked.stdout)
    garbage = phi3("gc", "--keep-days", "0", home=home, env=env)
    print(garbage.stdout)
    assert "nothing is removed there" in garbage.stdout
