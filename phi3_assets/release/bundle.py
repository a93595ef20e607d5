"""The release bundle: the folder an edge device takes, what is written into it, and how it is checked.

Its files:

model/           ONNX Runtime GenAI folder: int4 weights, tokenizer, chat template
smoke_test.py    proves on the device that the files are whole and the model answers; needs onnxruntime-genai alone
smoke.json       the questions it asks and what the model answered when it was evaluated
scores.json      quality of base, adapter, merged and int4
MODEL_CARD.md    for people; its head is metadata in the Hugging Face format
LICENSE          the base model's
sbom.cdx.json    bill of materials in CycloneDX: the model, its files, what runs it, what made it
release.json     SHA-256 and size of every other file, what it was made of, what it runs with, what the gate found
model.sig        signature with the maker's key; only in copies that were signed
"""

import json
from pathlib import Path
from typing import Any

from phi3_assets.core.errors import DamagedArtefact, UserError
from phi3_assets.core.files import FileEntry, hash_files
from phi3_assets.core.manifest import artefact_files

RELEASE = "release.json"
SIGNATURE = "model.sig"
FORMAT = 1


def read_release(bundle: Path) -> dict[str, Any]:
    """Parse release.json.

    Raises:
        UserError: The folder is no bundle.
        DamagedArtefact: release.json is cut off or of another format.
    """
    try:
        release: dict[str, Any] = json.loads((bundle / RELEASE).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{bundle} is not a release bundle: {RELEASE} cannot be read ({error.strerror}). "
            "Give the folder that holds it."
        ) from None
    except ValueError as error:
        raise DamagedArtefact(f"{bundle / RELEASE} is damaged: {error}. Copy the bundle anew.") from None
    if release.get("format") != FORMAT:
        raise DamagedArtefact(f"{bundle / RELEASE} has format {release.get('format')!r}; this version reads {FORMAT}.")
    return release


def verify_bundle(bundle: Path, public_key: Path | None = None) -> dict[str, Any]:
    """Check that a bundle holds exactly the files and bytes that release.json names.

    Args:
        bundle: The folder.
        public_key: PEM file of the maker's key; if given, the bundle must carry a signature that fits it. Without it
            the check finds damage, but not a forger who also rewrote release.json.

    Returns:
        What release.json holds.

    Raises:
        UserError: The folder is no bundle.
        DamagedArtefact: Names every file that is missing, extra or changed; or the signature does not fit.
    """
    release = read_release(bundle)
    expected = {path: FileEntry(**entry) for path, entry in release["files"].items()}
    present = set(artefact_files(bundle)) - {RELEASE, SIGNATURE}
    problems = [f"{path} is missing" for path in sorted(set(expected) - present)]
    problems += [f"{path} is not part of the release" for path in sorted(present - set(expected))]
    common = sorted(present & set(expected))
    problems += [f"{path} was changed" for path, entry in hash_files(bundle, common).items() if entry != expected[path]]
    if problems:
        raise DamagedArtefact(f"Bundle {bundle}: {'; '.join(problems)}. Copy the bundle anew from its source.")
    if public_key is not None:
        from phi3_assets.release.signature import verify_signature

        verify_signature(bundle, public_key)
    return release
