"""Versions in the identity are those of the library; what it was built for and where it ran are in the record."""

import importlib.metadata

import pytest

from phi3_assets.core import machine
from phi3_assets.core.step import StepCall, installed_versions
from phi3_assets.worker import running


def test_build_tag_is_in_no_identity(monkeypatch):
    """Torch 2.13.0+cpu here and 2.13.0+cu128 in the cluster were two identities of one artefact."""
    monkeypatch.setattr(importlib.metadata, "version", {"torch": "2.13.0+cu128", "peft": "0.21.2"}.get)
    assert installed_versions(("torch", "peft")) == {"peft": "0.21.2", "torch": "2.13.0"}


def test_a_build_of_another_name_is_the_same_library(monkeypatch):
    """With onnxruntime-genai-cuda installed, as a GPU needs it, onnxruntime-genai was missing."""

    def version(name):
        if name != "onnxruntime-genai-cuda":
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.14.1"

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert installed_versions(("onnxruntime-genai",)) == {"onnxruntime-genai": "0.14.1"}
    with pytest.raises(importlib.metadata.PackageNotFoundError, match="torch"):
        installed_versions(("torch",))


def test_worker_with_another_build_makes_the_artefact_and_records_it(monkeypatch):
    call = StepCall("merged_model", "1", {}, {}, {"torch": "2.13.0"})
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.13.0+cu128" if name == "torch" else "1")
    running.check_versions(call)
    assert running.versions(call)["torch"] == "2.13.0+cu128"


def test_record_names_what_computed(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "CPUS", tmp_path / "cpuinfo")
    assert machine.devices()["cpu"]  # a system without such a file
    machine.CPUS.write_text("processor\t: 0\nmodel name\t: Fast CPU 9000 @ 3 GHz\n")
    assert machine.devices()["cpu"] == "Fast CPU 9000 @ 3 GHz"
