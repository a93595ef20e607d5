"""What stands where below the store's prefix in the container. Paths are relative to it.

artefacts/<kind>/<identity>/manifest.json    names the attempt that won, in its metadata; written last, once
artefacts/<kind>/<identity>/<attempt>.json   what the service said of each blob of it when it was published
artefacts/<kind>/<identity>/<attempt>/       an artefact's directory as a worker sealed it, manifest.json included
logs/<kind>/<identity>.log                   log of the step that made it
ledger/<key>                                 see phi3_assets.core.ledger
claims/<kind>/<identity>                     leased by whoever makes it
files/<digest>.json                          written when the folder below is whole
files/<digest>/                              the user's files and our wheel, once per content
checkpoints/<kind>/<identity>/               of a training that is not over, whichever job continues it
jobs/<job name>/                             job.json and messages/ of a command job; gone when it is over
"""

# Blob metadata of artefacts/<kind>/<identity>/manifest.json.
ATTEMPT = "attempt"


def artefact(kind: str, identity: str) -> str:
    """Folder of everything made for an identity."""
    return f"artefacts/{kind}/{identity}"


def attempt(kind: str, identity: str, name: str) -> str:
    """Folder that one attempt at an identity writes to; `name` tells it from others, such as a job's name."""
    return f"{artefact(kind, identity)}/{name}"


def manifest(kind: str, identity: str) -> str:
    """The blob that makes an attempt the artefact."""
    return f"{artefact(kind, identity)}/manifest.json"


def listing(kind: str, identity: str, name: str) -> str:
    """What the service said of an attempt's blobs when it was published."""
    return f"{attempt(kind, identity, name)}.json"


def claim(kind: str, identity: str) -> str:
    """The blob whose lease is the claim."""
    return f"claims/{kind}/{identity}"


def log(kind: str, identity: str) -> str:
    """The log of the step that made an artefact."""
    return f"logs/{kind}/{identity}.log"


def user_files(digest: str) -> str:
    """A folder of the user's, by its content."""
    return f"files/{digest}"


def checkpoints(kind: str, identity: str) -> str:
    """Folder of the checkpoints of a step that is not over."""
    return f"checkpoints/{kind}/{identity}"


def user_files_marker(digest: str) -> str:
    """Stands beside the folder, for its files are the user's alone."""
    return f"{user_files(digest)}.json"


def job(name: str) -> str:
    """What belongs to one command job."""
    return f"jobs/{name}"
