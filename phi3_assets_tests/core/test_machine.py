"""How many cores a process may use; ONNX Runtime's own count was half of them in a virtual machine."""

import os

import pytest

from phi3_assets.core import cgroups, machine
from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.steps import LORA_ADAPTER


@pytest.fixture
def four_threads(monkeypatch, tmp_path):
    """Two cores of two threads each, and no limit."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(machine, "TOPOLOGY", tmp_path)
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    monkeypatch.setattr(cgroups, "OWN", tmp_path / "self")
    for cpu in range(4):
        write(tmp_path / f"cpu{cpu}/topology/thread_siblings_list", f"{cpu % 2},{cpu % 2 + 2}\n")
    return tmp_path


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_two_threads_of_a_core_count_once(four_threads, monkeypatch):
    assert machine.cores() == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2})
    assert machine.cores() == 1
    assert machine.machine()["cores"] == "1"


def test_without_a_topology_each_processor_counts(four_threads, monkeypatch):
    monkeypatch.setattr(machine, "TOPOLOGY", four_threads / "nowhere")
    assert machine.cores() == 4


@pytest.mark.parametrize(
    ("line", "files", "expected"),
    [
        ("0::/a/b\n", {"a/cpu.max": "150000 100000\n", "a/b/cpu.max": "max 100000\n"}, 2),
        ("0::/a/b\n", {"a/b/cpu.max": "50000 100000\n"}, 1),
        ("3:cpuacct,cpu:/docker/1\n", {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
    ],
    ids=["of a parent", "half a core", "version 1", "version 1, none"],
)
def test_quota_of_a_container_counts(four_threads, line, files, expected):
    write(four_threads / "self", line)
    for name, text in files.items():
        write(four_threads / name, text)
    assert machine.cores() == expected


@pytest.mark.parametrize(
    ("line", "dtype"),
    [
        ("flags\t\t: fpu avx512_bf16 sse", "bfloat16"),
        ("flags\t\t: fpu amx_bf16", "bfloat16"),
        ("Features\t: fp asimd bf16", "bfloat16"),
        ("flags\t\t: fpu avx512f", "float32"),
        ("", "float32"),
    ],
)
def test_automatic_dtype_is_what_the_processor_multiplies_and_the_identity_says_which(
    line, dtype, tmp_path, monkeypatch
):
    monkeypatch.setattr(machine, "CPUS", tmp_path / "cpuinfo")
    machine.CPUS.write_text(f"model name\t: CPU\n{line}\n")
    recipe = load_recipe("smol-cpu")
    assert recipe.torch_dtype == dtype
    assert LORA_ADAPTER.params(recipe)["torch_dtype"] == dtype
    assert load_recipe("smol-cpu", {"torch_dtype": "float32"}).torch_dtype == "float32"
