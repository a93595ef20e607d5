"""The one job that makes an artefact, from before it is submitted until nothing of it is left but the artefact."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster import PipesEnvContextInjector, open_pipes_session

from phi3_assets.azure import history, layout
from phi3_assets.azure.blobs import remove_folder, url_of
from phi3_assets.azure.clients import Clients
from phi3_assets.azure.errors import readable
from phi3_assets.core.errors import DamagedArtefact, TransientError, UserError
from phi3_assets.core.home import SHORT
from phi3_assets.core.manifest import ArtefactRef, Manifest
from phi3_assets.core.step import StepCall
from phi3_assets.resources import azureml_setup as setup
from phi3_assets.resources.azureml_failure import failure_of, log_tail
from phi3_assets.resources.azureml_following import COMPLETED, OVER, FollowedJob, status_of_job
from phi3_assets.resources.azureml_job import JobRequest, command_job, job_name
from phi3_assets.resources.blob_messages import BlobMessageReader
from phi3_assets.resources.blob_store import BlobArtifactStore
from phi3_assets.resources.execution import TRANSIENT, Context, UserFiles
from phi3_assets.resources.messages import Messages
from phi3_assets.steps import step_of
from phi3_assets.worker.job_file import JOB_FILE, JobFile
from phi3_assets.worker.step_file import StepFile, StepInput

if TYPE_CHECKING:
    from azure.ai.ml.entities import Job

MOST_ATTEMPTS = 1000


class Attempt:
    """The one job that makes an artefact, from before it is submitted until nothing of it is left but the artefact."""

    def __init__(
        self, context: Context, clients: Clients, call: StepCall, store: BlobArtifactStore, *, arc: bool
    ) -> None:
        """Nothing is asked or sent yet; `arc`: the compute must be a Kubernetes cluster."""
        self._context = context
        self._clients = clients
        self._call = call
        self._store = store
        self._arc = arc

    def run(self, inputs: Mapping[str, ArtefactRef | UserFiles], observe_every_s: float) -> Manifest:
        """Have the artefact made; returns its manifest.

        Raises:
            UserError: The workspace, its compute or its environment is not as it should be, or the job waited too long.
            TransientError: The service or the job's node could not be reached for long.
            dagster.Failure: The job failed, or left nothing.
        """
        call, log = self._call, self._context.log
        followed, job = self._newest()
        if job is not None and status_of_job(job) == COMPLETED:
            # Its orchestrator died before it could publish.
            log.info(f"Job {followed.name} has ended well already.")
            return self._publish(followed.name)
        # Where there is a job, its compute may be gone by now, or another one be set.
        compute = setup.check_compute(self._clients, arc=self._arc) if job is None else ""
        messages = Messages(self._context, step_of(call.step).progress_of or call.step, observe_every_s)
        reader = BlobMessageReader(
            self._store.container,
            self._path(f"{layout.job(followed.name)}/messages"),
            messages,
            min(2.0, self._clients.settings.poll_s),
        )
        with open_pipes_session(
            context=self._context, context_injector=PipesEnvContextInjector(), message_reader=reader
        ) as session:
            try:
                if job is None:
                    job = self._submit(followed, inputs, session.get_bootstrap_env_vars())
                    log.info(f"Step {call.step} {call.identity[:SHORT]} is job {followed.name} on {compute}.")
                else:
                    how = f"{status_of_job(job)} on {str(job.compute).rpartition('/')[2]}"
                    log.info(f"Job {followed.name} is making it already ({how}): going on with that one.")
                self._show(job)
                status = followed.follow(job)
            except (UserError, TransientError):
                raise  # whoever raised it has cancelled the job, or it may still be found by the next try
            except BaseException:
                # Terminate, Ctrl-C: whatever ends this process on purpose must not leave a job that costs money.
                self._give_up(followed)
                raise
        if status == COMPLETED:
            return self._publish(followed.name)
        failure = failure_of(self._clients, call, job, status, messages, log.info)
        self._clean_up(followed.name, keep_checkpoints=True)
        raise failure

    def _newest(self) -> tuple[FollowedJob, "Job | None"]:
        """The job that is making it, or has; else the next that may be submitted, which does not exist yet.

        Those before it are over, and nobody reads what they left: this process holds the claim. Whoever had submitted
        them removes it, unless that process was killed.
        """
        address = f"{self._clients.account_url}/{self._clients.datastore.container_name}/{self._path('')}"
        for number in range(1, MOST_ATTEMPTS):
            name = job_name(self._call, address, number)
            followed = FollowedJob(self._clients, name, self._context.log.info)
            job = followed.find()
            if job is None or status_of_job(job) not in OVER:
                return followed, job
            if status_of_job(job) == COMPLETED and self._store.has_attempt(self._call, name):
                return followed, job
            self._clean_up(name, keep_checkpoints=True)
        raise UserError(f"{MOST_ATTEMPTS} jobs have failed to make this artefact. Change something first.")

    def _submit(
        self, followed: FollowedJob, inputs: Mapping[str, ArtefactRef | UserFiles], variables: Mapping[str, str]
    ) -> "Job":
        settings, call = self._clients.settings, self._call
        environment = setup.find_environment(self._clients)
        if environment is None:
            self._context.log.info(
                "The environment is new to this workspace: its image is built first, for 10 to 20 minutes."
            )
            environment = setup.make_environment(self._clients)
        needs_token = bool(settings.hf_token_secret) and step_of(call.step).reads_hub
        job_file = JobFile(
            step=StepFile(
                call=call,
                inputs={
                    name: StepInput("", item.digest, item if isinstance(item, ArtefactRef) else None)
                    for name, item in inputs.items()
                },
                output="",
                work="",
                cache="",
                execution="azure_arc" if self._arc else "azureml",
            ),
            account_url=self._clients.account_url,
            container=self._clients.datastore.container_name,
            client_id=settings.client_id,
            key_vault=setup.key_vault(self._clients) if needs_token else "",
            hf_token_secret=settings.hf_token_secret if needs_token else "",
        )
        path = self._path(f"{layout.job(followed.name)}/spec/{JOB_FILE}")
        with readable(f"Writing to {url_of(self._store.container)}/{path}"):
            self._store.container.upload_blob(path, job_file.to_json().encode(), overwrite=True)
        request = JobRequest(
            name=followed.name,
            call=call,
            inputs={name: self._address(name, item) for name, item in inputs.items()},
            package=settings.uri(setup.put_package(self._store)),
            environment=environment,
            variables={"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1", **variables},
            tags={
                "phi3/step": call.step,
                "phi3/identity": call.identity,
                "dagster/run_id": self._context.run.run_id,
                "dagster/job": self._context.run.job_name,
            },
        )
        return followed.submit(command_job(request, settings))

    def _address(self, name: str, item: ArtefactRef | UserFiles) -> str:
        """What a job mounts for an input."""
        if isinstance(item, UserFiles):
            return item.remote or self._clients.settings.uri(self._store.put_user_files(name, item))
        return self._clients.settings.uri(self._store.attempt_path(item))

    def _show(self, job: "Job") -> None:
        """The job's page, from the first second."""
        metadata: dict[str, Any] = {
            "job": str(job.name),
            "AzureML studio": dg.MetadataValue.url(str(job.studio_url)),
        }
        self._context.log_event(dg.AssetObservation(asset_key=self._call.step, metadata=metadata))
        self._context.log.info(f"Job {job.name} in AzureML studio: {job.studio_url}")

    def _publish(self, name: str) -> Manifest:
        """Make what the job left the artefact.

        Raises:
            dagster.Failure: The job ended well and left nothing that can be verified.
        """

        def end_the_job() -> None:
            # Before there is an artefact: where there is one nobody asks for its job any more, so whatever a process
            # that is killed had not removed would stay for ever.
            self._keep_log(name)
            self._clean_up(name, keep_checkpoints=False)

        try:
            return self._store.adopt_attempt(self._call, name, end_the_job)
        except DamagedArtefact as error:
            self._clean_up(name, keep_checkpoints=True)  # else nobody would ever submit another one
            raise dg.Failure(
                f"{self._call.step}: job {name} ended well, but left no whole artefact: {error}",
                metadata={TRANSIENT: dg.MetadataValue.bool(False), **log_tail(self._clients, name)},
                allow_retries=False,
            ) from error

    def _keep_log(self, name: str) -> None:
        """Keep the job's log where the artefact's is looked for; that it cannot be had is no failure of the step."""
        try:
            text = history.log_of(self._clients, name)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "worker.log"
                path.write_text(text, encoding="utf-8")
                self._store.keep_log(self._call, path)
        except (UserError, TransientError) as error:
            self._context.log.warning(f"The job's log stays in the workspace alone. {error}")

    def _give_up(self, followed: FollowedJob) -> None:
        """Cancel the job for somebody who wants an end of it, whatever hinders that."""
        self._context.log.info(f"Cancelling job {followed.name}.")
        try:
            followed.cancel()
        except (UserError, TransientError) as error:
            self._context.log.error(str(error))
        else:
            self._clean_up(followed.name, keep_checkpoints=True)

    def _clean_up(self, name: str, *, keep_checkpoints: bool) -> None:
        """Remove what nobody reads any more; the next attempt goes on from the checkpoints of one that failed.

        What cannot be removed is in nobody's way, so it changes nothing of how the step ends.
        """
        step, identity = self._call.step, self._call.identity
        other = layout.attempt(step, identity, name) if keep_checkpoints else layout.checkpoints(step, identity)
        container = self._store.container
        try:
            with readable(f"Removing what job {name} left in {url_of(container)}"):
                for path in (layout.job(name), other):
                    remove_folder(container, self._path(path))
        except (UserError, TransientError) as error:
            self._context.log.warning(str(error))

    def _path(self, path: str) -> str:
        """A path of the store as the container knows it."""
        return f"{self._clients.settings.prefix}/{path}"
