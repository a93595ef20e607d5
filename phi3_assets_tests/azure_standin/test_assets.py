"""Environments, data and models of unmodified clients."""

import json

import pytest
from azure.ai.ml import Input
from azure.ai.ml.entities import Data, Environment, Model
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

from phi3_assets_tests.azure_standin.submitting import ROOT, log_of, submit

pytestmark = pytest.mark.azure


def test_a_conda_file_comes_back_in_other_words(azure, clients):
    put = azure.traffic("PUT", "management", "/environments/")[0]
    assert "python=3.11" in put["request"]["properties"]["condaFile"]
    assert json.loads(put["response"]["properties"]["condaFile"]) == {"dependencies": ["python=3.11"]}
    assert clients.ml.environments.get("phi3", version="1").conda_file == {"dependencies": ["python=3.11"]}
    with pytest.raises(ResourceNotFoundError):
        clients.ml.environments.get("phi3", version="2")


def test_what_a_version_is_made_of_cannot_be_changed(azure, clients):
    changed = Environment(name="phi3", version="1", image="another", conda_file={"dependencies": ["python=3.11"]})
    with pytest.raises(HttpResponseError, match="already exists"):
        clients.ml.environments.create_or_update(changed)


def test_a_model_is_registered_where_it_is(azure, clients):
    model = Model(name="phi3", version="1", path=f"{ROOT}/release/", type="custom_model", tags={"digest": "abc"})
    clients.ml.models.create_or_update(model)
    assert clients.ml.models.get("phi3", version="1").tags == {"digest": "abc"}


def test_data_of_the_workspace_is_an_input(azure, clients):
    clients.container.upload_blob("raw/a.csv", b"a,b\n")
    clients.ml.data.create_or_update(Data(name="rows", version="1", path=f"{ROOT}/raw/", type="uri_folder"))
    data = Input(type="uri_folder", path="azureml:rows:1")
    name = submit(clients, "cat ${{inputs.data}}/a.csv", inputs={"data": data})
    azure.wait_for(name, "Completed")
    assert log_of(clients, name) == "a,b\n"
