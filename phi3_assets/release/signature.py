"""Handing a bundle out: a plain copy, signed with a key of the user's (OpenSSF model signing).

The artefact in the store never changes, so the signature goes into the copy. The private key is read from its file and
goes nowhere else: not into the store, a log or a step.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from phi3_assets.core.errors import DamagedArtefact, UserError
from phi3_assets.core.files import copy_file
from phi3_assets.core.manifest import MANIFEST
from phi3_assets.release.bundle import RELEASE, SIGNATURE, files_of, read_release, verify_bundle


def export_bundle(release: Path, target: Path, private_key: Path | None = None, password: str | None = None) -> Path:
    """Copy a release out of the store, verify the copy, and sign it if a key is given.

    Args:
        release: The release_bundle artefact, or another bundle.
        target: Where to; must not exist.
        private_key: PEM file of an elliptic-curve key, as `openssl ecparam -name prime256v1 -genkey` makes.
        password: The key's, if it has one.

    Returns:
        `target`.

    Raises:
        UserError: The target exists, or the key cannot be read.
        DamagedArtefact: The release does not hold what its release.json says.
    """
    if target.exists():
        raise UserError(f"{target} exists and is not overwritten; move it or give another name.")
    if private_key is not None:
        _readable(private_key, "Private key")
    # Only what release.json names: neither the store's manifest nor what a desktop left.
    for path in sorted(files_of(read_release(release), release / RELEASE)):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        _copy(release, path, target)
    _copy(release, RELEASE, target)
    verify_bundle(target)
    if private_key is not None:
        sign_bundle(target, private_key, password)
    return target


def _copy(release: Path, path: str, target: Path) -> None:
    try:
        copy_file(release / path, target / path)
    except OSError as error:
        raise DamagedArtefact(f"{release / path} cannot be copied ({error.strerror}).") from None


def sign_bundle(bundle: Path, private_key: Path, password: str | None = None) -> Path:
    """Write a detached signature over every file of the bundle.

    Returns:
        The signature's file.

    Raises:
        UserError: The key cannot be read or is none.
    """
    from model_signing import signing

    _readable(private_key, "Private key")
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=private_key, password=password)
    except (ValueError, TypeError) as error:
        raise UserError(f"Private key {private_key} cannot be used: {error}.") from None
    signature = bundle / SIGNATURE
    signature.unlink(missing_ok=True)
    config.set_hashing_config(_hashing(bundle)).sign(bundle, signature)
    return signature


def verify_signature(bundle: Path, public_key: Path) -> None:
    """Check that the bundle's files are those that the holder of the private key signed.

    Raises:
        UserError: The key cannot be read or is none.
        DamagedArtefact: No signature, one of another key, or a file that changed since.
    """
    from model_signing import verifying

    _readable(public_key, "Public key")
    signature = bundle / SIGNATURE
    if not signature.exists():
        raise DamagedArtefact(f"{bundle} is not signed: there is no {SIGNATURE}. Ask its maker for a signed copy.")
    config = _configured(verifying.Config().use_elliptic_key_verifier, public_key)
    try:
        config.set_hashing_config(_hashing(bundle)).verify(bundle, signature)
    except ValueError as error:
        raise DamagedArtefact(
            f"{bundle}: the signature does not fit ({error}). It was made with another key, or files changed since."
        ) from None


def _configured(use: Callable[..., Any], public_key: Path) -> Any:
    try:
        return use(public_key=public_key)
    except (ValueError, TypeError) as error:
        raise UserError(f"Public key {public_key} cannot be used: {error}.") from None


def _hashing(bundle: Path) -> Any:
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[bundle / SIGNATURE, bundle / MANIFEST], ignore_git_paths=False)


def _readable(path: Path, what: str) -> None:
    if not path.is_file():
        raise UserError(f"{what} {path} is not there. Give the path of a PEM file.")
