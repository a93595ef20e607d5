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

from pathlib import Path
from typing import Any

from phi3_assets.core.errors import DamagedArtefact, UserError
from phi3_assets.core.files import FileEntry, hash_files, list_files, read_json, what_it_is
from phi3_assets.core.manifest import MANIFEST, read_manifest, verify

RELEASE = "release.json"
SIGNATURE = "model.sig"
FORMAT = 1
_ANEW = "Copy the bundle anew from its source."


def read_release(bundle: Path) -> dict[str, Any]:
    """Parse release.json.

    Raises:
        UserError: The folder is no bundle.
        DamagedArtefact: release.json is cut off, a link, of another format, or names files that cannot be in a bundle.
    """
    path = bundle / RELEASE
    try:
        if kind := what_it_is(path):
            raise DamagedArtefact(f"{path} is {kind} and no file. {_ANEW}")
        release = read_json(path)
    except OSError as error:
        raise UserError(
            f"{bundle} is not a release bundle: {RELEASE} cannot be read ({error.strerror}). "
            "Give the folder that holds it."
        ) from None
    except ValueError as error:
        raise DamagedArtefact(f"{path} is damaged: {error}. {_ANEW}") from None
    if not isinstance(release, dict):
        raise DamagedArtefact(f"{path} is damaged: it is no object. {_ANEW}")
    if release.get("format") != FORMAT:
        raise DamagedArtefact(f"{path} has format {release.get('format')!r:.40}; this version reads {FORMAT}.")
    files_of(release, path)
    return release


def files_of(release: dict[str, Any], path: Path) -> dict[str, FileEntry]:
    """The files that a release names.

    Raises:
        DamagedArtefact: They are no table of relative paths, sizes and digests.
    """
    files = release.get("files")
    if not isinstance(files, dict) or not files:
        raise DamagedArtefact(f"{path} is damaged: it names no files. {_ANEW}")
    found = {}
    for name, entry in files.items():
        parts = name.split("/")
        if any(part in ("", ".", "..") for part in parts) or "\\" in name or "\0" in name:
            raise DamagedArtefact(f"{path} is damaged: {name!r:.80} is no path within a bundle. {_ANEW}")
        try:
            found[name] = FileEntry(**entry)
        except TypeError:
            raise DamagedArtefact(f"{path} is damaged: it says no size and SHA-256 of {name!r:.80}. {_ANEW}") from None
    return found


def verify_bundle(bundle: Path, public_key: Path | None = None) -> dict[str, Any]:
    """Check that a bundle holds exactly the files and bytes that release.json names, as plain files.

    Args:
        bundle: The folder.
        public_key: PEM file of the maker's key; if given, the bundle must carry a signature that fits it. Without it
            the check finds damage, but not a forger who also rewrote release.json.

    Returns:
        What release.json holds.

    Raises:
        UserError: The folder is no bundle.
        DamagedArtefact: Names every file that is missing, extra, changed or a link; or the signature does not fit.
    """
    release = read_release(bundle)
    expected = files_of(release, bundle / RELEASE)
    present = set(list_files(bundle)) - {RELEASE}
    odd = {path: kind for path in sorted(present) if (kind := what_it_is(bundle / path))}
    allowed = {path for path in (SIGNATURE, MANIFEST) if path in present - odd.keys() and path not in expected}
    if MANIFEST in allowed and not _is_the_stores(bundle):
        allowed.remove(MANIFEST)
    problems = [f"{path} is missing" for path in sorted(set(expected) - present)]
    problems += [f"{path} is not part of the release" for path in sorted(present - set(expected) - allowed)]
    problems += [f"{path} is {kind} and no file" for path, kind in odd.items() if path in expected]
    common = sorted((present & set(expected)) - odd.keys())
    problems += [f"{path} was changed" for path, entry in hash_files(bundle, common).items() if entry != expected[path]]
    if problems:
        more = f"; and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise DamagedArtefact(f"Bundle {bundle}: {'; '.join(problems[:20])}{more}. {_ANEW}")
    if public_key is not None:
        from phi3_assets.release.signature import verify_signature

        verify_signature(bundle, public_key)
    return release


def _is_the_stores(bundle: Path) -> bool:
    """Whether manifest.json is what makes this very folder an artefact; in any other bundle it is a foreign file."""
    try:
        verify(bundle, read_manifest(bundle), content=False)
    except DamagedArtefact:
        return False
    return True
