"""What a job is run with: our wheel, and an environment of the versions that are installed here."""

import subprocess
import sys
import zipfile
from importlib import metadata

from packaging.requirements import Requirement

from phi3_assets.azure.environment import conda_file, needed, version_of
from phi3_assets.azure.package import build_wheel


def test_the_wheel_is_the_same_each_time(tmp_path):
    (tmp_path / "again").mkdir()
    assert build_wheel(tmp_path).read_bytes() == build_wheel(tmp_path / "again").read_bytes()


def test_unpacked_it_is_the_package_with_its_files_and_version(tmp_path):
    """A job has no more than this; the checkout is not there."""
    with zipfile.ZipFile(build_wheel(tmp_path)) as wheel:
        wheel.extractall(tmp_path / "package")
    told = (
        "import importlib.metadata as m, phi3_assets, phi3_assets.worker.__main__, phi3_assets.core.recipe_file as f\n"
        "print(phi3_assets.__file__, m.version('phi3-assets'), len(f.shipped_recipes()))"
    )
    env = {"PYTHONPATH": str(tmp_path / "package"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", told], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    path, version, recipes = done.stdout.split()
    assert path.startswith(str(tmp_path / "package"))
    assert version == metadata.version("phi3-assets")
    assert int(recipes) >= 4


def test_pip_can_install_it(tmp_path):
    wheel = build_wheel(tmp_path)
    target = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    assert subprocess.run([*pip, str(wheel)], capture_output=True).returncode == 0
    assert (target / "phi3_assets" / "steps" / "finetune.py").exists()


def test_the_environment_holds_all_that_its_distributions_need():
    names = needed()
    assert {"torch", "olive-ai", "dagster-pipes", "azure-storage-blob", "azure-keyvault-secrets"} <= names
    assert not names & {"dagster", "dagster-webserver", "azure-ai-ml", "pytest"}
    for name in names:
        for text in metadata.requires(name) or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                assert requirement.name.lower().replace("_", "-").replace(".", "-") in names, f"{name} needs {text}"


def test_the_environments_version_follows_from_what_it_is_made_of():
    conda = conda_file()
    pins = conda["dependencies"][-1]["pip"]
    assert f"torch=={metadata.version('torch').partition('+')[0]}" in pins
    assert version_of("image", conda) == version_of("image", conda_file())
    assert version_of("image", conda) != version_of("other image", conda)
    pins[0] = "accelerate==0.0.1"
    assert version_of("image", conda) != version_of("image", conda_file())
