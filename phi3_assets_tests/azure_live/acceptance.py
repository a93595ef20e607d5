"""The questions; each is an assertion about one workspace, whose it may be."""

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from phi3_assets.azure.clients import Clients
from phi3_assets.azure.settings import load_settings
from phi3_assets.resources.blob_store import BlobArtifactStore
from phi3_assets.resources.pointers import latest
from phi3_assets_tests.azure_standin import judge
from phi3_assets_tests.conftest import clean_env
from phi3_assets_tests.tiny_graph import PHI3, TINY

PRODUCT = "operations-desk"
_SCOPE = "https://management.azure.com/.default"
# What is read of a job and around it, by the api-versions of azure-ai-ml 1.35.
_ADDRESSES = {
    "workspaces": ("", "2024-10-01-preview"),
    "workspaces/datastores": ("/datastores/{datastore}", "2024-10-01-preview"),
    "workspaces/computes": ("/computes/{compute}", "2023-08-01-preview"),
    "workspaces/environments/versions": ("/environments/{environment}/versions/{version}", "2023-04-01-preview"),
    "workspaces/jobs": ("/jobs/{job}", "2024-01-01-preview"),
}


@dataclass
class Verdict:
    """What the judge said of a workspace's answers.

    Attributes:
        wrong: Against Microsoft's types, by resource.
        new: Members and values that the types do not know, by resource.
    """

    wrong: dict[str, list[str]] = field(default_factory=dict)
    new: dict[str, list[str]] = field(default_factory=dict)


def is_ready(env: dict[str, str]) -> str:
    """`phi3 azure check --write` finds nothing wrong; returns what it said."""
    return _phi3("azure", "check", "--write", env=env)


def make(asset: str, env: dict[str, str], home: Path) -> dict[str, str]:
    """Make an asset on the workspace with the tiny recipe, and again, which submits nothing.

    Returns:
        Name of the job that made each artefact, by kind.
    """
    command = ["run", *TINY, "--to", asset, "--home", str(home)]
    said = _phi3(*command, env=env)
    jobs = jobs_of(home)
    assert asset in jobs, said
    again = _phi3(*command, env=env)
    assert "is job" not in again, again
    assert jobs_of(home) == jobs
    return jobs


def jobs_of(home: Path) -> dict[str, str]:
    """Name of the job that made each of the newest artefacts: that of its attempt's folder."""
    store = BlobArtifactStore(home=str(home))
    newest = {kind: latest(store.ledger, PRODUCT, kind) for kind in ("raw_dataset", "base_model", "lora_adapter")}
    return {kind: store.attempt_path(ref).rpartition("/")[2] for kind, ref in newest.items() if ref is not None}


def judged(jobs: dict[str, str]) -> Verdict:
    """Read the workspace, the parts that jobs need and the jobs themselves, and judge what is answered."""
    from azure.core import PipelineClient
    from azure.core.pipeline import policies
    from azure.core.rest import HttpRequest

    clients = Clients(load_settings())
    settings, verdict = clients.settings, Verdict()
    some_job = clients.ml.jobs.get(next(iter(jobs.values())))
    environment, version = some_job.environment.rpartition("/environments/")[2].replace("azureml:", "").split(":")[-2:]
    names = {
        "datastore": settings.datastore,
        "compute": settings.compute,
        "environment": environment,
        "version": version,
    }
    pipeline = [policies.RetryPolicy(), policies.BearerTokenCredentialPolicy(clients.credential, _SCOPE)]
    with PipelineClient("https://management.azure.com", policies=pipeline) as client:
        for resource, (address, api_version) in _ADDRESSES.items():
            for job in jobs.values() if "{job}" in address else [""]:
                path = f"{settings.scope}{address.format(**names, job=job)}?api-version={api_version}"
                answer = client.send_request(HttpRequest("GET", f"https://management.azure.com{path}"))
                answer.raise_for_status()
                wrong, new = judge.surprises(resource, api_version, json.loads(answer.text()))
                verdict.wrong.setdefault(resource, []).extend(wrong)
                verdict.new.setdefault(resource, []).extend(new)
    return verdict


def _phi3(*arguments: str, env: dict[str, str]) -> str:
    done = subprocess.run([*PHI3, *arguments], env=clean_env(**env), capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
