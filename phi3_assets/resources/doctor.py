"""`phi3 doctor`: is everything in order that a run needs? Machine, installation, home, hub, Dagster's instance, Azure.

One answer for each question, in the order in which things are to be mended; what is wrong is told with what to do.
Nothing is changed, and no value that may be secret is told.
"""

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import dagster as dg

from phi3_assets import __version__
from phi3_assets.azure.settings import PREFIX
from phi3_assets.core.errors import TransientError, UserError
from phi3_assets.core.home import FOLDERS, PACKAGE
from phi3_assets.core.locks import Holder, try_lock
from phi3_assets.core.machine import machine
from phi3_assets.core.memory import available_bytes, total_bytes
from phi3_assets.core.recipe_data import is_hub_id
from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.core.step import installed_version
from phi3_assets.resources.azureml_check import NOT_ASKED, OK, WRONG, Checked, check_azure
from phi3_assets.resources.azureml_questions import NotAskedError
from phi3_assets.resources.chosen_execution import LOCAL, VARIABLE, chosen
from phi3_assets.resources.devices import CPU, GPUS, VISIBLE, devices
from phi3_assets.resources.doctor_instance import InstanceQuestions
from phi3_assets.resources.stores import make_store

# What the default recipe takes; a larger model's training reckons its own need and is refused where it cannot fit.
LEAST_MEMORY_BYTES = 4e9
LEAST_DISK_BYTES = 3e9
_LOCK = "requirements.lock"
# Importing torch takes seconds and memory, so a process of its own is asked, and only where there is a GPU.
_ASK_TORCH = """
import json, torch
names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
print(json.dumps([torch.__version__, torch.version.cuda, names]))
"""


def examine(home: Path, load_jobs: Callable[[], Iterable[dg.JobDefinition]]) -> Iterator[Checked]:
    """Ask everything, and tell each answer as soon as it is there.

    Args:
        home: PHI3_HOME.
        load_jobs: Loads the code location and gives its jobs.
    """
    yield _answer("machine", _machine)
    yield _answer("gpu", _gpu)
    yield _answer("versions", _versions)
    yield _answer("recipe", _recipe)
    yield _answer("home", lambda: _home(home))
    yield _answer("disk", lambda: _disk(home))
    yield _answer("hub", _hub)
    with InstanceQuestions(Path(os.environ.get("DAGSTER_HOME") or home / ".dagster"), home, load_jobs) as instance:
        missing = ""
        for what, question in instance.questions():
            yield (found := Checked(what, NOT_ASKED, missing) if missing else _answer(what, question))
            if what == "instance" and found.verdict != OK:
                missing = "instance first"
    if any(
        name.startswith(PREFIX) or (name.startswith(VARIABLE) and value != LOCAL) for name, value in os.environ.items()
    ):
        yield from check_azure()
    else:
        yield Checked("azure", NOT_ASKED, f"no {PREFIX}... is set, and all steps run on this machine")


def _answer(what: str, question: Callable[[], str]) -> Checked:
    try:
        return Checked(what, OK, question())
    except NotAskedError as reason:
        return Checked(what, NOT_ASKED, str(reason))
    except (UserError, TransientError) as error:
        return Checked(what, WRONG, str(error))


def _machine() -> str:
    found, total, free = machine(), total_bytes(), available_bytes()
    told = f"{platform.system()} {platform.machine()}, {found['cores']} cores of {found['cpu']}, "
    told += f"{total / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB of it free"
    if sys.platform != "linux":
        raise UserError(f"{told}. Steps are ended by means of Linux: use Linux, WSL 2 or a container.")
    if free < LEAST_MEMORY_BYTES:
        raise UserError(
            f"{told}. The default recipe takes {LEAST_MEMORY_BYTES / 1e9:.0f} GB: end what else holds memory, or give "
            "the container more."
        )
    return told


def _gpu() -> str:
    if devices(os.environ) == [CPU]:
        hidden = f"; {VISIBLE}={os.environ[VISIBLE]!r} hides those of this machine" if GPUS.is_dir() else ""
        return f"none{hidden}; steps run on the CPU, one at a time"
    asked = subprocess.run([sys.executable, "-c", _ASK_TORCH], capture_output=True, text=True, check=False)
    if asked.returncode:
        last = asked.stderr.strip().splitlines()[-1:]
        raise UserError(f"torch cannot be imported ({''.join(last)}). Install the packages anew: see versions.")
    version, cuda, names = json.loads(asked.stdout)
    if not names:
        way_out = (
            f"its build for CUDA {cuda} wants a newer driver, or one that is not broken: look at `nvidia-smi`"
            if cuda
            else "it is built for CPUs: `pip install --force-reinstall 'torch=="
            + version.partition("+")[0]
            + "'` from "
            "PyPI brings the build for CUDA"
        )
        raise UserError(f"the driver shows {', '.join(devices(os.environ))}, but torch {version} sees none; {way_out}.")
    return f"{', '.join(names)}; torch {version}, CUDA {cuda}"


def _versions() -> str:
    ours = f"phi3-assets {__version__}, Python {platform.python_version()}"
    places = (PACKAGE.parent, Path(sysconfig.get_path("data"), "share", "phi3-assets"))
    lock = next((place / _LOCK for place in places if (place / _LOCK).is_file()), None)
    if lock is None:
        raise NotAskedError(f"{ours}; there is no {_LOCK} to compare with in {' or '.join(map(str, places))}")
    locked = dict(line.split("==") for line in lock.read_text(encoding="utf-8").split())
    installed = {name: version for name in locked if (version := _installed(name))}
    wrong = [f"{name} {version} for {locked[name]}" for name, version in installed.items() if version != locked[name]]
    # What only developers need may be missing.
    wrong += [f"no {name}" for name in _needed() if not _installed(name)]
    if wrong:
        raise UserError(
            f"other versions than {lock} says: {', '.join(wrong)}. `{sys.executable} -m pip install --no-deps "
            f"--requirement {lock}` brings these; others are untested and make other identities."
        )
    return f"{ours}; {len(installed)} packages, all as {lock} says"


def _needed() -> list[str]:
    """Names of the distributions that this package names as its needs, those of its extras left out."""
    said = [one for one in importlib.metadata.requires("phi3-assets") or [] if "extra ==" not in one]
    return [re.split(r"[^\w.-]", one, maxsplit=1)[0] for one in said]  # every requirement begins with a name


def _installed(name: str) -> str:
    """Version of a distribution without its build tag; "": it is not installed."""
    try:
        return installed_version(name).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return ""


def _recipe() -> str:
    recipe = load_recipe()
    where = ", ".join(sorted(set(chosen(os.environ).values())))
    return f"{os.environ.get('PHI3_RECIPE') or 'smol-cpu'}, product {recipe.product}; steps run on: {where}"


def _home(home: Path) -> str:
    store = "artefacts stand elsewhere, and are fetched" if make_store(home).elsewhere else "artefacts stand in it"
    if not home.exists() or not any(home.iterdir()):
        return f"{home} is not there yet; `phi3 init`, or the first run, lays it out"
    if not any((home / name).is_dir() for name in FOLDERS):
        raise UserError(
            f"{home} is no home: it holds other things, and no {', '.join(FOLDERS)}. Name another place with --home or "
            "PHI3_HOME; `phi3 init` lays out a new one."
        )
    probe = home / "work" / f".doctor-{os.getpid()}.lock"
    try:
        lock = try_lock(probe, Holder(making="a test of locks"))
        assert lock is not None, "nobody else has a file of this name"
        lock.release()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"{home} cannot be written ({error.strerror}). Change its permissions, or name another place with --home "
            "or PHI3_HOME."
        ) from error
    return f"{home} can be written and locked; {store}"


def _disk(home: Path) -> str:
    place = next(path for path in (home, *home.parents) if path.exists())
    disk = shutil.disk_usage(place)
    told = f"{disk.free / 1e9:.1f} GB of {disk.total / 1e9:.1f} GB free at {place}"
    if disk.free < LEAST_DISK_BYTES:
        raise UserError(
            f"{told}; the default recipe takes {LEAST_DISK_BYTES / 1e9:.0f} GB. `phi3 gc` lists what nothing needs any "
            "more; PHI3_HOME may be on another disk."
        )
    return told


def _hub() -> str:
    recipe = load_recipe()
    wanted = {recipe.base_model: "model"} if is_hub_id(recipe.base_model) else {}
    if recipe.dataset_path.startswith("hf:"):
        wanted[recipe.dataset_path.removeprefix("hf:").partition("@")[0]] = "dataset"
    if not wanted:
        raise NotAskedError("the recipe takes nothing from it")
    # Heavy; and here, where all that is asked of it stands.
    from httpx2 import HTTPError
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    if constants.HF_HUB_OFFLINE:
        raise NotAskedError("HF_HUB_OFFLINE forbids the network")
    for repository, kind in wanted.items():
        try:
            HfApi().auth_check(repository, repo_type=kind)
        except (GatedRepoError, RepositoryNotFoundError):
            raise UserError(
                f"{constants.ENDPOINT} does not show {kind} {repository} to "
                f"{'this HF_TOKEN' if os.environ.get('HF_TOKEN') else 'people without a token'}: ask for access on its "
                "page, and set HF_TOKEN to a read token."
            ) from None
        except (HfHubHTTPError, HTTPError, OSError) as error:
            raise UserError(
                f"{constants.ENDPOINT} cannot be reached ({type(error).__name__}), and the recipe takes {repository} "
                "from it. HTTPS_PROXY and HF_ENDPOINT lead through a proxy or to a mirror; HF_HUB_OFFLINE=1 does "
                "without, where the model-cache is filled."
            ) from error
    return f"{constants.ENDPOINT} shows {', '.join(wanted)}"
