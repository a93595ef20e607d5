"""Azurite, Microsoft's own blob storage for one machine: installed once per clone, started per test process."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import filelock

from phi3_assets_tests.azure_standin.names import ACCOUNT

NPM = Path(__file__).parent / "npm"
CACHE = Path(__file__).parents[2] / "build" / "azurite"
START_S = 60


def install() -> Path:
    """Install what `npm/package-lock.json` pins to build/azurite of the clone, unless it is there.

    Returns:
        The program `azurite-blob`.

    Raises:
        RuntimeError: npm is missing, or fails; carries its output.
    """
    program = CACHE / "node_modules" / ".bin" / "azurite-blob"
    lock = (NPM / "package-lock.json").read_bytes()
    done = CACHE / "installed.json"
    CACHE.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(CACHE / "install.lock"):
        if done.exists() and done.read_bytes() == lock:
            return program
        if shutil.which("npm") is None:
            raise RuntimeError("Azurite needs node and npm; install node 20 or later, or leave out `-m azure`.")
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(NPM / name, CACHE / name)
        command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        ran = subprocess.run(command, cwd=CACHE, capture_output=True, text=True)
        if ran.returncode:
            raise RuntimeError(f"{' '.join(command)} in {CACHE} failed:\n{ran.stdout}\n{ran.stderr}")
        done.write_bytes(lock)
    return program


class Azurite:
    """One server, in memory, over TLS, that takes tokens and the account's key."""

    def __init__(self, key: str, certificate: Path, private_key: Path, log: Path, hostname: str) -> None:
        """Start it and wait until it listens; `hostname` marks the process for whoever cleans up.

        Raises:
            RuntimeError: It ended, or does not listen after a minute; carries its log.
        """
        self.port = _free_port()
        command = [str(install()), "--blobHost", "127.0.0.1", "--blobPort", str(self.port), "--silent"]
        command += ["--disableTelemetry", "--inMemoryPersistence", "--extentMemoryLimit", "4096"]
        # Newer clients name versions of the protocol that this Azurite does not know yet.
        command += ["--skipApiVersionCheck", "--oauth", "basic"]
        command += ["--cert", str(certificate), "--key", str(private_key)]
        env = {**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{key}", "HOSTNAME": hostname}
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        deadline = time.monotonic() + START_S
        while not _listens(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Azurite did not start: {' '.join(command)}\n{log.read_text(errors='replace')}")
            time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
