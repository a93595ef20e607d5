"""A PostgreSQL of a test's own: a cluster in a temporary folder, on the loopback address, with a password."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import yaml

DEPLOYMENT = Path(__file__).parents[2] / "deployment"
HOW = "PostgreSQL's server is not installed; on Debian: apt-get install postgresql"
# Needs quoting in an address and in YAML; and is looked for wherever a secret may not be.
PASSWORD = "canary/Pg7:Yc1 qZ0%secret"


def programs() -> Path | None:
    """Folder of `postgres` and `pg_ctl`, the newest where there are several; None: not installed."""
    found = shutil.which("pg_ctl")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda path: int(path.parts[-3]))
    return Path(found).resolve().parent if found else debian[-1].parent if debian else None


class Postgres:
    """A running server; Debian's `initdb` refuses root, so as root it is the user `postgres`."""

    def __init__(self, port: int = 0, prefix: tuple[str, ...] = ()) -> None:
        """Make the cluster and start it.

        Args:
            port: Where it listens; 0: any free port.
            prefix: What its commands are put behind, such as `ip netns exec NAME`.
        """
        found = programs()
        assert found is not None, HOW
        self._programs = found
        self._user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        self._prefix = prefix
        self.port = port or _free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="phi3-postgres-"))
        password = self._folder / "password"
        password.write_text(PASSWORD)
        if self._user:
            owner = pwd.getpwnam("postgres")
            for path in (self._folder, password):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        self._data = self._folder / "data"
        named = [f"--pgdata={self._data}", "--username=phi3", f"--pwfile={password}", "--auth=scram-sha-256"]
        self._run("initdb", *named, "--encoding=UTF8", "--locale=C", "--no-sync")
        self.start()
        self._run("createdb", f"--host={self._folder}", f"--port={self.port}", "--username=phi3", "phi3")

    @property
    def environment(self) -> dict[str, str]:
        """What `deployment/dagster.yaml` reads."""
        return {
            "PHI3_PG_HOST": "127.0.0.1",
            "PHI3_PG_PORT": str(self.port),
            "PHI3_PG_USERNAME": "phi3",
            "PHI3_PG_PASSWORD": PASSWORD,
            "PHI3_PG_DATABASE": "phi3",
        }

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        listening = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self._folder} -F"
        self._control("start", "-w", "-l", f"{self._folder}/log", "-o", listening)

    def stop(self) -> None:
        """Stop it: every connection is cut off, as when its container is replaced."""
        self._control("stop", "-w", "-m", "fast")

    def remove(self) -> None:
        """Stop it and delete the cluster."""
        self._control("stop", "-m", "immediate")
        shutil.rmtree(self._folder)

    def dump(self) -> str:
        """Everything that is stored, as SQL."""
        connection = [f"--host={self._folder}", f"--port={self.port}", "--username=phi3"]
        return self._run("pg_dump", *connection, "phi3")

    def _control(self, *arguments: str) -> None:
        self._run("pg_ctl", "-D", str(self._data), *arguments)

    def _run(self, program: str, *arguments: str) -> str:
        output = self._folder / f"{program}.out"
        # Into a file: the server would inherit a pipe, and whoever reads it would wait for the server's end.
        with output.open("wb") as file:
            done = subprocess.run(
                [*self._prefix, str(self._programs / program), *arguments],
                env={**os.environ, "PGPASSWORD": PASSWORD},
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                **self._user,
            )
        said = output.read_text(encoding="utf-8", errors="replace")
        assert done.returncode == 0, f"{program}: {said}"
        return said


def dagster_home(folder: Path) -> Path:
    """A DAGSTER_HOME with the deployment's own dagster.yaml."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(DEPLOYMENT / "dagster.yaml", folder)
    assert "postgres" in yaml.safe_load((folder / "dagster.yaml").read_text())["storage"]
    return folder


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
