"""A directory to Azure Blob Storage and back against azure-storage-blob's own parallel transfer, on Azurite.

    python -m benchmarks blob
    python -m benchmarks blob --pairs 1 --shape 2000x100000

The peer sends the same files on as many threads and verifies nothing. Ours compares every block by MD5 and every file
by SHA-256 both ways. Of each pair one goes first in turn; Azurite is a fresh one for each shape. The worst of the
ratios is the one that is judged.
"""

import argparse
import base64
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from phi3_assets.azure.parallel import FILES_AT_ONCE, PIECES_AT_ONCE
from phi3_assets.azure.transfer import download_directory, upload_directory
from phi3_assets.core.files import hash_files, list_files
from phi3_assets_tests.azure_standin.azurite import install

BAR = 1.3
# Number of files, and bytes of each.
SHAPES = ["1x1073741824", "8x134217728", "2000x100000"]
ACCOUNT = "benchmark"
KEY = base64.b64encode(b"no secret: a server of this process's own").decode()


@contextmanager
def container(memory_mib: int) -> Iterator[Any]:
    """A container in an Azurite of its own, in memory."""
    from azure.core.exceptions import ServiceRequestError
    from azure.storage.blob import ContainerClient

    port = 10_971
    command = [str(install()), "--blobHost", "127.0.0.1", "--blobPort", str(port), "--silent", "--disableTelemetry"]
    command += ["--inMemoryPersistence", "--extentMemoryLimit", str(memory_mib), "--skipApiVersionCheck"]
    server = subprocess.Popen(
        command, env={**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"}, stdout=subprocess.DEVNULL
    )
    try:
        credential = {"account_name": ACCOUNT, "account_key": KEY}
        client = ContainerClient(f"http://127.0.0.1:{port}/{ACCOUNT}", "benchmark", credential=credential)
        while True:
            try:
                client.create_container(retry_total=0)
            except ServiceRequestError:
                time.sleep(0.2)
            else:
                break
        yield client
    finally:
        server.kill()
        server.wait()


def their_upload(client: Any, folder: str, directory: Path) -> None:
    """Each file by `upload_blob`."""

    def upload(path: str) -> None:
        with (directory / path).open("rb") as file:
            client.get_blob_client(f"{folder}/{path}").upload_blob(file, max_concurrency=PIECES_AT_ONCE)

    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        list(pool.map(upload, list_files(directory)))


def their_download(client: Any, folder: str, directory: Path) -> None:
    """Each file by `download_blob`."""
    directory.mkdir()

    def download(name: str) -> None:
        with (directory / name.removeprefix(f"{folder}/")).open("wb") as file:
            client.get_blob_client(name).download_blob(max_concurrency=PIECES_AT_ONCE).readinto(file)

    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        list(pool.map(download, list(client.list_blob_names(name_starts_with=f"{folder}/"))))


def seconds(action: Callable[[], object]) -> float:
    """Wall time."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def measure(shape: str, pairs: int, room: Path) -> dict[str, float]:
    """Median ratio of ours to theirs, up and down."""
    count, size = (int(number) for number in shape.split("x"))
    source = room / "source"
    source.mkdir()
    for number in range(count):
        with (source / f"{number:04d}.bin").open("wb") as file:
            for start in range(0, size, 1 << 24):
                file.write(os.urandom(min(1 << 24, size - start)))
    files = hash_files(source)
    times: dict[str, list[tuple[float, float]]] = {"up": [], "down": []}
    with container((2 * pairs + 1) * (count * size >> 20) + 512) as client:
        # Connections, and the peer's code, are warm for both.
        their_upload(client, "warm", _small(room))
        for pair in range(pairs):
            ours, theirs = f"ours-{pair}", f"theirs-{pair}"
            up = {
                "ours": lambda at=ours: upload_directory(client, at, source, files),
                "theirs": lambda at=theirs: their_upload(client, at, source),
            }
            down = {
                "ours": lambda at=ours: download_directory(client, at, room / at, files),
                "theirs": lambda at=theirs: their_download(client, at, room / at),
            }
            order = ("ours", "theirs") if pair % 2 else ("theirs", "ours")
            for way, actions in (("up", up), ("down", down)):
                took = {who: seconds(actions[who]) for who in order}
                times[way].append((took["ours"], took["theirs"]))
            assert hash_files(room / theirs) == files
            shutil.rmtree(room / ours)
            shutil.rmtree(room / theirs)
    ratios = {}
    for way, column in times.items():
        ratios[way] = statistics.median(ours / theirs for ours, theirs in column)
        ours, theirs = (statistics.median(one) for one in zip(*column, strict=True))
        print(f"{shape:16}{way:6}{ours:8.2f}{theirs:8.2f}{ratios[way]:8.2f}")
    return ratios


def _small(room: Path) -> Path:
    folder = room / "small"
    folder.mkdir()
    for number in range(FILES_AT_ONCE):
        (folder / str(number)).write_bytes(b"warm")
    return folder


def run(args: list[str]) -> dict[str, Any]:
    """Worst median ratio of all shapes, up and down; at most 1.3."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks blob")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--shape", action="append", help="files x bytes of each, such as 2000x100000")
    given = parser.parse_args(args)
    print(f"{'files x bytes':16}{'':6}{'ours, s':>8}{'theirs':>8}{'ratio':>8}")
    ratios: dict[str, float] = {}
    for shape in given.shape or SHAPES:
        with tempfile.TemporaryDirectory() as room:
            ratios |= {f"{shape} {way}": ratio for way, ratio in measure(shape, given.pairs, Path(room)).items()}
    worst = max(ratios, key=lambda name: ratios[name])
    print(f"\nworst: {worst}, {ratios[worst]:.2f} (at most {BAR})\n")
    rounded = {name: round(ratio, 3) for name, ratio in ratios.items()}
    return {"name": "blob", "ratio": rounded[worst], "bar": BAR, "ok": ratios[worst] <= BAR, "ratios": rounded}
