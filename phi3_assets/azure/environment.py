"""The environment of a job: this very environment's versions as a conda file on an image, named by their hash.

A worker refuses other versions than the orchestrator's, since they are in the identity; so what is installed here is
the specification, and a lock that it was installed from has nothing to add. The service builds an image from it once.
"""

import platform
import re
from importlib import metadata
from typing import Any

from phi3_assets.azure.package import NAME
from phi3_assets.core.step import sha256_of

ENVIRONMENT = "phi3-assets"
# What a step has no use for: the orchestrator and its pages.
ORCHESTRATOR = {"dagster", "dagster-azure", "dagster-webserver"}
# What dagster-azure brings to the orchestrator, and a job needs too.
JOB = ("azure-identity", "azure-keyvault-secrets", "azure-storage-blob")


def conda_file() -> dict[str, Any]:
    """The conda specification: Python and, through pip, each distribution that a step needs, at its version here."""
    pins = {name: metadata.version(name).partition("+")[0] for name in needed()}
    return {
        "name": ENVIRONMENT,
        "channels": ["conda-forge"],
        "dependencies": [
            f"python={platform.python_version()}",
            "pip",
            {"pip": [f"{name}=={version}" for name, version in sorted(pins.items())]},
        ],
    }


def version_of(image: str, conda: dict[str, Any]) -> str:
    """Version of the environment: hash of what it is made of."""
    return sha256_of({"image": image, "conda": conda})[:16]


def needed() -> set[str]:
    """Names of all distributions that a step needs, directly or not, except this package itself."""
    from packaging.requirements import Requirement

    own = [Requirement(text) for text in metadata.requires(NAME) or []]
    roots = [Requirement(name) for name in JOB]
    waiting = [*roots, *(one for one in own if _holds(one, {""}) and _canonical(one.name) not in ORCHESTRATOR)]
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = _canonical(requirement.name)
        extras = {"", *requirement.extras}
        if new := {(name, extra) for extra in extras} - seen:
            seen |= new
            waiting += [one for text in metadata.requires(name) or [] if _holds(one := Requirement(text), extras)]
    return {name for name, _ in seen}


def _holds(requirement: Any, extras: set[str]) -> bool:
    """Whether a distribution that was asked for with these extras has this requirement, here."""
    return requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras)


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
