"""What `phi3 doctor` asks Dagster's instance: can it be opened, and will it queue, watch and end runs as it should?"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import dagster as dg
import psutil

from phi3_assets.core.errors import UserError
from phi3_assets.resources.azureml_questions import NotAskedError
from phi3_assets.resources.runs import dead_runs, open_instance

# A daemon writes a heartbeat every 30 seconds.
HEARTBEAT_S = 300
_OVER_NETWORK = {"cifs", "fuse.sshfs", "nfs", "nfs4", "smb3"}


class InstanceQuestions:
    """Each question returns what it found; the instance is open from the question `instance` on.

    Raises:
        UserError: It is wrong.
        NotAskedError: There is nothing to ask.
    """

    def __init__(self, folder: Path, home: Path, load_jobs: Callable[[], Iterable[dg.JobDefinition]]) -> None:
        """Nothing is opened yet.

        Args:
            folder: DAGSTER_HOME.
            home: PHI3_HOME.
            load_jobs: Loads the code location and gives its jobs.
        """
        self._folder = folder
        self._home = home
        self._load_jobs = load_jobs
        self._jobs: list[dg.JobDefinition] = []
        self._open = ExitStack()

    def __enter__(self) -> "InstanceQuestions":
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Close the instance."""
        self._open.close()

    def questions(self) -> Iterator[tuple[str, Callable[[], str]]]:
        """All of them; those after `instance` need that it is open."""
        yield "code", self._code
        yield "instance", self._instance_opens
        yield "storage", self._storage
        yield "queue", self._queue
        yield "pools", self._pools
        yield "daemon", self._daemon
        yield "monitoring", self._monitoring
        yield "telemetry", self._telemetry

    @property
    def _settings(self) -> str:
        return f"{self._folder / 'dagster.yaml'}"

    def _code(self) -> str:
        started = time.monotonic()
        self._jobs = list(self._load_jobs())
        return f"the code location loads in {time.monotonic() - started:.1f} s"

    def _instance_opens(self) -> str:
        if not os.path.exists(self._settings):
            raise NotAskedError(f"{self._settings} is not there yet; `phi3 init`, or the first run, writes it")
        try:
            self._instance = self._open.enter_context(open_instance(self._folder))
        except UserError:
            raise
        except (
            Exception
        ) as error:  # whatever the storage raises that is configured; PostgreSQL's derives from nothing else
            cause = error
            while (before := cause.__cause__ or cause.__context__) is not None:
                cause = before  # type: ignore[assignment]
            raise UserError(
                f"Dagster's instance cannot be opened as {self._settings} says: "
                f"{' '.join(_words(cause).split())[:300]}. Mend that file, or what it points to; PostgreSQL needs `pip "
                "install 'phi3-assets[postgres]'`."
            ) from error
        return f"opened as {self._settings} says"

    def _storage(self) -> str:
        storages = (self._instance.run_storage, self._instance.event_log_storage, self._instance.schedule_storage)
        for storage in storages:
            version = storage.alembic_version() if storage is not None else None
            if version is not None and version[0] != version[1]:
                raise UserError(
                    "its tables are those of another release of Dagster. End what writes to it, and run `dagster "
                    "instance migrate`."
                )
        if "sqlite" not in type(self._instance.event_log_storage).__module__:
            return f"{type(self._instance.event_log_storage).__name__}, with the tables of this release"
        kind = _file_system(self._folder)
        if kind in _OVER_NETWORK:
            raise UserError(
                f"SQLite in {self._folder}, which is {kind}: it loses runs there. Set DAGSTER_HOME to a folder of a "
                "local disk, or store in PostgreSQL: docs/deployment.md."
            )
        return f"SQLite in {self._folder}: for one machine; PostgreSQL is for a team's"

    def _queue(self) -> str:
        queue = self._instance.get_concurrency_config().run_queue_config
        if queue is None:
            raise UserError(
                f"runs start at once and all of them. Give {self._settings} `concurrency: {{runs: "
                "{max_concurrent_runs: 4}}`."
            )
        return f"at most {queue.max_concurrent_runs} runs at once; {self._waiting()} wait"

    def _waiting(self) -> int:
        return self._instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]))

    def _pools(self) -> str:
        limits = {pool.name: pool.limit for pool in self._instance.event_log_storage.get_pool_limits()}
        told = ", ".join(f"{name} {limit}" for name, limit in limits.items()) or "none"
        return f"{told}; none is needed, devices are held with kernel locks"

    def _daemon(self) -> str:
        beats = self._instance.get_daemon_heartbeats()
        late = [
            name
            for name in self._instance.get_required_daemon_types()
            if name not in beats or time.time() - beats[name].timestamp > HEARTBEAT_S
        ]
        if not late:
            return "runs: sensors tick, and queued runs start"
        if waiting := self._waiting():
            raise UserError(
                f"{waiting} runs wait in the queue, and nothing takes them out: no sign of {', '.join(late)} within "
                f"{HEARTBEAT_S // 60} minutes. `make ui`, or `dagster-daemon run`, does."
            )
        raise NotAskedError("none runs, so no sensor ticks; `make ui` starts one, and `phi3 run` needs none")

    def _monitoring(self) -> str:
        if not self._instance.run_monitoring_enabled:
            raise UserError(
                f"runs that do not start are not ended. Give {self._settings} `run_monitoring: {{enabled: true}}`."
            )
        if dead := [run.run_id for run in dead_runs(self._instance, self._home, self._jobs)]:
            raise UserError(
                f"Dagster takes {', '.join(dead)} for running, and its process is gone. The daemon ends it within a "
                "minute, and so does the next `phi3 run`."
            )
        return "on; every run that is said to run does"

    def _telemetry(self) -> str:
        if self._instance.telemetry_enabled:
            raise UserError(
                f"Dagster reports its use to its makers. Give {self._settings} `telemetry: {{enabled: false}}`."
            )
        return "off"


def _words(error: BaseException) -> str:
    """What an error says; of Dagster's on a configuration only what is wrong there, and not all that could stand."""
    if isinstance(error, dg.DagsterInvalidConfigError):
        return "; ".join(one.message for one in error.errors)
    return str(error)


def _file_system(folder: Path) -> str:
    """Kind of the file system that a folder is on, such as "ext4"; "": it is not known."""
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    return next((mounts[place] for place in (folder, *folder.parents) if place in mounts), "")
