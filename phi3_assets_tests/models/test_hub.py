"""The hub, played by a server of our own to the unmodified client: pinned commits, resume, gates, no pickles."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "a" * 40
SCRIPT = """
import sys
from pathlib import Path
from phi3_assets.core.errors import UserError
from phi3_assets.models.hub import fetch_from_hub, licence_of
try:
    begin = lambda missing, whole: print("missing", missing, "of", whole)
    found = fetch_from_hub(sys.argv[1], sys.argv[2], Path(sys.argv[3]), print, begin=begin)
except (UserError, ConnectionError) as error:
    sys.exit(f"{type(error).__name__}: {error}")
print(*sorted(path.name for path in found.iterdir()), licence_of(found))
"""


class Hub:
    """Files of repositories, and what was asked for."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.asked: list[str] = []
        self.cut_after: int | None = None
        self.endpoint = ""


def entry(name: str, content: bytes) -> dict[str, object]:
    """A file as the hub lists it: large ones by SHA-256, small ones by git's blob id."""
    listed = {"type": "file", "path": name, "size": len(content)}
    listed["oid"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    if name.endswith(".safetensors"):
        sha256 = hashlib.sha256(content).hexdigest()
        listed["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 134}
    return listed


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    hub.repositories["acme/phi3"] = {
        "config.json": b"{}",
        "model.safetensors": bytes(range(256)) * 4096 * 24,
        "tokenizer.json": b"{}",
        "README.md": b"---\nlicense: mit\n---\n# A model",
        "modeling_phi3.py": b"raise SystemExit",
        "onnx/config.json": b"{}",
    }
    hub.repositories["acme/pickled"] = {"config.json": b"{}", "pytorch_model.bin": b"\x80"}
    hub.repositories["acme/gated"] = dict(hub.repositories["acme/phi3"])
    hub.gated.add("acme/gated")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, with_body: bool) -> None:
            hub.asked.append(f"{self.command} {self.path}")
            api = re.match(r"/api/models/([\w-]+/[\w-]+)/(?:revision|tree)/(\w+)", self.path)
            file = re.match(r"/([\w-]+/[\w-]+)/resolve/(\w+)/([^?]+)", self.path)
            repository, commit = (api or file).group(1, 2) if api or file else ("", "")
            files = hub.repositories.get(repository)
            if files is None:
                self.reply(404, b"", {"X-Error-Code": "RepoNotFound"}, with_body)
            elif commit != COMMIT:
                self.reply(404, b"", {"X-Error-Code": "RevisionNotFound"}, with_body)
            elif repository in hub.gated and self.headers.get("Authorization") != "Bearer hf_good":
                self.reply(403, b"", {"X-Error-Code": "GatedRepo"}, with_body)
            elif api:
                siblings = [{"rfilename": name} for name in files]
                tree = [entry(name, body) for name, body in files.items()]
                body = {"id": repository, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
                content = json.dumps(tree if "/tree/" in self.path else body).encode()
                self.reply(200, content, {"Content-Type": "application/json"}, with_body)
            else:
                content = files[file.group(3)]
                etag = entry(file.group(3), content)["lfs" if "safetensors" in file.group(3) else "oid"]
                etag = etag["oid"] if isinstance(etag, dict) else etag
                self.reply(
                    200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}, with_body
                )

        def reply(self, status: int, body: bytes, headers: dict[str, str], with_body: bool) -> None:
            start = re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")
            if start and status == 200:
                first, size = int(start[1]), len(body)
                status, body = 206, body[first:]
                headers["Content-Range"] = f"bytes {first}-{size - 1}/{size}"
                hub.asked.append(f"from {first}")
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                if hub.cut_after is not None and len(body) > hub.cut_after:
                    self.wfile.write(body[: hub.cut_after])
                    self.close_connection = True
                else:
                    self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield hub
    server.shutdown()


def fetch(
    hub: Hub, repository: str, cache: Path, commit: str = COMMIT, **environment: str
) -> subprocess.CompletedProcess:
    """Fetch in a process of its own: the client reads its settings when it is imported."""
    settings = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, repository, commit, str(cache)],
        env={**clean, **settings, "HF_HOME": str(cache / "home"), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_model_files_alone_are_fetched_and_kept(hub: Hub, tmp_path: Path) -> None:
    done = fetch(hub, "acme/phi3", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "README.md config.json model.safetensors tokenizer.json mit"
    hub.asked.clear()
    assert fetch(hub, "acme/phi3", tmp_path, HF_HUB_OFFLINE="1").returncode == 0
    assert hub.asked == []


def test_sizes_are_told_before_anything_is_downloaded(hub: Hub, tmp_path: Path) -> None:
    """Of the model files alone, for the disk must hold them twice: in the cache and as the artefact."""
    files = hub.repositories["acme/phi3"]
    whole = sum(len(files[name]) for name in ("config.json", "model.safetensors", "tokenizer.json", "README.md"))
    assert f"\nmissing {whole} of {whole}\n" in fetch(hub, "acme/phi3", tmp_path).stdout
    assert f"\nmissing 0 of {whole}\n" in fetch(hub, "acme/phi3", tmp_path).stdout
    assert f"\nmissing 0 of {whole}\n" in fetch(hub, "acme/phi3", tmp_path, HF_HUB_OFFLINE="1").stdout
    shutil.rmtree(tmp_path / "hub" / "models--acme--phi3" / "snapshots")  # as of another commit with the same files
    assert f"\nmissing 0 of {whole}\n" in fetch(hub, "acme/phi3", tmp_path).stdout


def test_broken_download_goes_on_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    hub.cut_after = 12_000_000  # of 25; the client writes chunks of 10 MiB
    done = fetch(hub, "acme/phi3", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "from 10485760" in hub.asked
    (model,) = (tmp_path / "hub").rglob("snapshots/*/model.safetensors")
    assert model.read_bytes() == hub.repositories["acme/phi3"]["model.safetensors"]


@pytest.mark.slow  # the hub client itself tries for a while
def test_download_that_never_gets_on_is_worth_another_try(hub: Hub, tmp_path: Path) -> None:
    hub.cut_after = 1_000_000
    assert (
        "ConnectionError: The hub cannot be reached for acme/phi3, or broke off"
        in fetch(hub, "acme/phi3", tmp_path).stderr
    )


def test_pickles_are_refused_before_anything_is_downloaded(hub: Hub, tmp_path: Path) -> None:
    done = fetch(hub, "acme/pickled", tmp_path)
    assert "UserError: acme/pickled" in done.stderr
    assert "no *.safetensors" in done.stderr
    assert not any("/resolve/" in line for line in hub.asked)


def test_gated_repository_says_how_to_get_access(hub: Hub, tmp_path: Path) -> None:
    done = fetch(hub, "acme/gated", tmp_path)
    assert "UserError: acme/gated is gated" in done.stderr
    assert "HF_TOKEN" in done.stderr
    assert fetch(hub, "acme/gated", tmp_path, HF_TOKEN="hf_good").returncode == 0


@pytest.mark.parametrize(
    ("repository", "commit", "expected"),
    [
        ("acme/none", COMMIT, "UserError: base_model: the hub has no repository 'acme/none'"),
        ("acme/phi3", "b" * 40, f"UserError: base_model_revision: acme/phi3 has no commit {'b' * 40}"),
    ],
)
def test_what_is_not_there_is_named(hub: Hub, repository: str, commit: str, expected: str, tmp_path: Path) -> None:
    assert expected in fetch(hub, repository, tmp_path, commit).stderr


def test_offline_without_the_model_says_so(hub: Hub, tmp_path: Path) -> None:
    done = fetch(hub, "acme/phi3", tmp_path, HF_HUB_OFFLINE="1")
    assert "UserError: acme/phi3" in done.stderr
    assert "HF_HUB_OFFLINE forbids the network" in done.stderr


@pytest.mark.slow  # the hub client itself tries for half a minute
def test_hub_that_cannot_be_reached_is_worth_another_try(hub: Hub, tmp_path: Path) -> None:
    done = fetch(hub, "acme/phi3", tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert "ConnectionError: The hub cannot be reached for acme/phi3" in done.stderr


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 4]))


def test_damaged_files_of_the_cache_are_fetched_again(hub: Hub, tmp_path: Path) -> None:
    """The client takes a file that is there for whole: flipped weights went into a base model under its identity."""
    hub.repositories["acme/phi3"]["model.safetensors"] = bytes(range(256)) * 64
    hub.repositories["acme/phi3"]["tokenizer.json"] = b'{"a": 1}'
    assert fetch(hub, "acme/phi3", tmp_path).returncode == 0
    (snapshot,) = (tmp_path / "hub").glob("models--acme--phi3/snapshots/*")

    def swap() -> None:
        targets = [os.readlink(snapshot / name) for name in ("config.json", "tokenizer.json")]
        for name, target in zip(("tokenizer.json", "config.json"), targets, strict=True):
            (snapshot / name).unlink()
            (snapshot / name).symlink_to(target)

    def damage() -> None:
        flip(snapshot / "model.safetensors", 9000)
        (snapshot / "tokenizer.json").resolve().write_bytes(b"")
        flip(next(snapshot.parents[1].glob("*.seal")), 40)

    for harm, names in ((damage, "model.safetensors, tokenizer.json"), (swap, "config.json, tokenizer.json")):
        harm()
        done = fetch(hub, "acme/phi3", tmp_path)
        assert done.returncode == 0, done.stderr
        assert f"{names} of acme/phi3 in the cache did not hold what the hub promises; removed" in done.stdout
        for path in snapshot.iterdir():
            assert path.read_bytes() == hub.repositories["acme/phi3"][path.name]


def test_damaged_file_is_refused_offline(hub: Hub, tmp_path: Path) -> None:
    """A cache that was carried to a machine without a network is verified all the same."""
    assert fetch(hub, "acme/phi3", tmp_path).returncode == 0
    (model,) = (tmp_path / "hub").glob("models--acme--phi3/snapshots/*/model.safetensors")
    flip(model, 12_345)
    for said in ("model.safetensors of acme/phi3 in", "acme/phi3 at aaaaaaaaaaaa is not (whole) in"):
        done = fetch(hub, "acme/phi3", tmp_path, HF_HUB_OFFLINE="1")
        assert f"UserError: {said}" in done.stderr
        assert "HF_HUB_OFFLINE forbids the network. Run once without it" in done.stderr
