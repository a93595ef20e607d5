"""Handing out a bundle: signed copies, forgeries, keys that are none."""

import hashlib
import json
import os

import pytest

from phi3_assets.core.errors import DamagedArtefact, UserError
from phi3_assets.release.bundle import verify_bundle
from phi3_assets.release.signature import export_bundle, sign_bundle


def make_key(directory, name):
    """A pair of PEM files, private and public."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    private, public = directory / f"{name}.pem", directory / f"{name}.pub"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


def write_release(bundle):
    """Make release.json say what the folder holds, as the release step does and as a forger would."""
    files = {
        path.relative_to(bundle).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(bundle.rglob("*"))
        if path.is_file() and path.name not in ("release.json", "manifest.json", "model.sig")
    }
    (bundle / "release.json").write_text(json.dumps({"format": 1, "files": files}))


@pytest.fixture
def release(tmp_path):
    """A bundle as it stands in the store."""
    bundle = tmp_path / "release"
    (bundle / "model").mkdir(parents=True)
    (bundle / "model" / "model.onnx").write_bytes(b"weights")
    (bundle / "LICENSE").write_text("MIT License")
    write_release(bundle)
    (bundle / "manifest.json").write_text("{}")  # the store's
    return bundle


@pytest.fixture
def signed(release, tmp_path):
    private, public = make_key(tmp_path, "maker")
    return export_bundle(release, tmp_path / "out", private), public


def test_a_signed_copy_verifies_and_the_store_is_untouched(signed, release):
    bundle, public = signed
    assert verify_bundle(bundle, public)["format"] == 1
    assert not (bundle / "manifest.json").exists()
    assert not (release / "model.sig").exists()


def test_copies_share_no_file_with_the_store(signed, release):
    (signed[0] / "LICENSE").write_text("changed")
    assert (release / "LICENSE").read_text() == "MIT License"


def test_a_forger_who_rewrites_release_json_is_caught_by_the_signature_alone(signed):
    bundle, public = signed
    (bundle / "model" / "model.onnx").write_bytes(b"WEIGHTS")
    write_release(bundle)
    verify_bundle(bundle)
    with pytest.raises(DamagedArtefact, match="signature does not fit"):
        verify_bundle(bundle, public)


def test_one_flipped_bit_is_caught_before_the_signature(signed):
    bundle, public = signed
    (bundle / "model" / "model.onnx").write_bytes(b"weighps")
    with pytest.raises(DamagedArtefact, match=r"model/model\.onnx was changed"):
        verify_bundle(bundle, public)


def test_another_key_does_not_fit(signed, tmp_path):
    _, other = make_key(tmp_path, "other")
    with pytest.raises(DamagedArtefact, match="made with another key"):
        verify_bundle(signed[0], other)


def test_an_unsigned_bundle_is_no_signed_one(release, tmp_path):
    _, public = make_key(tmp_path, "maker")
    bundle = export_bundle(release, tmp_path / "out")
    verify_bundle(bundle)
    with pytest.raises(DamagedArtefact, match="is not signed"):
        verify_bundle(bundle, public)


def test_what_is_no_key_or_not_there_is_named(release, tmp_path, signed):
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("not a key")
    with pytest.raises(UserError, match=r"nonsense\.pem cannot be used"):
        sign_bundle(release, nonsense)
    with pytest.raises(UserError, match=r"nonsense\.pem cannot be used"):
        verify_bundle(signed[0], nonsense)
    with pytest.raises(UserError, match="is not there"):
        export_bundle(release, tmp_path / "elsewhere", tmp_path / "none.pem")
    assert not (tmp_path / "elsewhere").exists()


def test_an_existing_target_is_not_overwritten(release, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="is not overwritten"):
        export_bundle(release, tmp_path / "out")


HUGE = '{"format": 1, "files": ' + "[" * 200_000


def _second_manifest(bundle):
    (bundle / "manifest.json").write_text("{}")


def _link_for_a_file(bundle):
    (bundle / "LICENSE").rename(bundle.parent / "away")
    (bundle / "LICENSE").symlink_to(bundle.parent / "away")


def _pipe_for_a_file(bundle):
    (bundle / "LICENSE").unlink()
    os.mkfifo(bundle / "LICENSE")


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_link_for_a_file, "LICENSE is a link and no file"),
        (lambda b: (b / "more").symlink_to("/etc"), "more is not part of the release"),
        (_second_manifest, "manifest.json is not part of the release"),
        (lambda b: (b / "model" / "manifest.json").write_text("{}"), "model/manifest.json is not part of the release"),
        (lambda b: (b / "model" / "release.json").write_text("{}"), "model/release.json is not part of the release"),
        (lambda b: os.mkfifo(b / "extra"), "extra is not part of the release"),
        (_pipe_for_a_file, r"LICENSE is a pipe \(FIFO\) and no file"),
        (lambda b: (b / "model.sig").symlink_to("LICENSE"), "model.sig is not part of the release"),
        (lambda b: (b / "release.json").unlink() or os.mkfifo(b / "release.json"), r"release.json is a pipe \(FIFO\)"),
    ],
)
def test_what_is_no_file_or_not_the_releases_is_seen(release, tmp_path, change, said):
    """A link for a file, a linked folder and a second manifest passed for whole; a pipe was waited for for ever."""
    bundle = export_bundle(release, tmp_path / "out")
    change(bundle)
    with pytest.raises(DamagedArtefact, match=said):
        verify_bundle(bundle)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "it is no object"),
        ('{"format": 1}', "names no files"),
        ('{"format": 1, "files": "all"}', "names no files"),
        ('{"format": 1, "files": {"LICENSE": "x"}}', "no size and SHA-256 of 'LICENSE'"),
        ('{"format": 1, "files": {"LICENSE": {"bytes": 1}}}', "no size and SHA-256 of 'LICENSE'"),
        ('{"format": 1, "files": {"../key": {"bytes": 1, "sha256": ""}}}', "'../key' is no path within a bundle"),
        ('{"format": 1, "files": {"/etc/passwd": {"bytes": 1, "sha256": ""}}}', "'/etc/passwd' is no path within"),
        ('{"format": [1]}', "has format"),
        (HUGE, "nested too deeply"),
        ("\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), "is damaged"),
    ],
)
def test_an_odd_release_json_is_damage(release, tmp_path, text, said):
    """Each ended in a traceback, or read a file outside of the bundle."""
    (release / "release.json").write_text(text, encoding="latin-1")
    for use in (verify_bundle, lambda bundle: export_bundle(bundle, tmp_path / "out")):
        with pytest.raises(DamagedArtefact, match=said):
            use(release)


def test_an_export_leaves_what_a_desktop_wrote(release, tmp_path):
    (release / ".DS_Store").write_text("x")
    assert not (export_bundle(release, tmp_path / "out") / ".DS_Store").exists()


def test_a_damaged_release_is_not_handed_out(release, tmp_path):
    (release / "LICENSE").write_text("changed")
    with pytest.raises(DamagedArtefact, match="LICENSE was changed"):
        export_bundle(release, tmp_path / "out")
