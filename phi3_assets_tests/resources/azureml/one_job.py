"""For tests of steps as command jobs: one step in a job of its own, and what may become of it on the way."""

import threading
import time

import dagster as dg

from phi3_assets.azure.clients import clients_of
from phi3_assets_tests.conftest import raw_dataset_call
from phi3_assets_tests.resources.execution_contract import ExecutionContract

REFUSED = {"times": -1, "status": 403, "code": "AuthorizationPermissionMismatch"}
# The control plane says in milliseconds when to come back, where a client would double its pause each time.
SOON = {"x-ms-retry-after-ms": "50"}


def run(execution, store, instance=None, **more):
    """Read the home's files in a job: what was made, and the run's result."""
    call, inputs = raw_dataset_call(store)
    contract = ExecutionContract()
    made, result = contract.run(_Bound(execution, more), store, call, inputs, instance)
    return made, result


class _Bound:
    """An execution with more arguments for `run_step`."""

    def __init__(self, execution, more):
        self.execution, self.more = execution, more

    def run_step(self, *arguments):
        return self.execution.run_step(*arguments, **self.more)


def failure(result) -> dg.Failure:
    """What the only step failed of."""
    return ExecutionContract().failure(result)


def blobs(store, *folders):
    """Names below the prefix of what stands in these folders."""
    names = [blob.name.removeprefix("phi3-assets/") for blob in store.container.list_blobs("phi3-assets/")]
    return [name for name in names if name.startswith(folders)]


def address_of(store):
    """Address of everything in the store, which is in the names of its jobs."""
    return f"https://phi3standin.blob.core.windows.net/{store.container.container_name}/phi3-assets/"


def foreign_job(store, name, text):
    """A job of this name that is not ours."""
    from azure.ai.ml import command

    clients_of(store.settings).ml.jobs.create_or_update(
        command(
            name=name,
            command=text,
            environment="azureml://registries/azureml/environments/any/versions/1",
            compute="cpu-cluster",
        )
    )


def first_job(azure):
    """Name of the first job, once there is one."""
    while not (jobs := azure.jobs()):
        time.sleep(0.05)
    return jobs[0]["name"]


def ended(azure, execution, store, how, *, held=False):
    """Run while the job is held in the queue, and end it by `how(name)`; `held`: the queue stands afterwards too."""
    azure.hold("cpu-cluster")

    def end():
        how(first_job(azure))

    thread = threading.Thread(target=end)
    thread.start()
    made, result = run(execution, store)
    thread.join()
    azure.hold("cpu-cluster", held=held)
    return made, result
