"""The OpenSSF `model-signing` signature beside ours, for those who verify with that tool.

Optional: `pip install 'quantmint[openssf]'`. It takes ECDSA keys on P-256, so it has a key of
its own (`keys/model-signing/<name>.pem`) that counts nowhere else. Both sides are made strict:
nothing is ignored but the signature itself, the status of releases, which a registry adds later,
and the notes of the Hub's downloader (by default the tool passes over `.git*`). It knows no
release numbers and no expiry: our own manifest stays what a pull believes.

The signature covers the manifest, so the manifest can't list it. It lists the public key instead
(`openssf-key.pem`): where that stands, a missing or wrong `model.sig` is refused.
"""

from __future__ import annotations

import re
import tempfile
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

from quantmint import names
from quantmint.errors import IntegrityError, UserError
from quantmint.files import write_whole
from quantmint.registry.keys import KEY_NAME, pem_of, require_private, write_private
from quantmint.registry.manifest.release import (
    MODEL_SIGNATURE_FILE,
    OPENSSF_KEY_FILE,
    Manifest,
)
from quantmint.registry.publish.files import STATUS, STATUS_SIGNATURE
from quantmint.registry.signing.folder import DOWNLOADER, listing, read_capped

if TYPE_CHECKING:
    from model_signing import hashing

SIGNATURE_LIMIT: Final = 1 << 20
# What the tool's messages say, as it lists them.
_FINDINGS: Final = (
    ("changed since it was signed", r"Hash mismatch for \\?'(.+?)\\?':"),
    ("added since", r"Extra files found in model .+?: (.+?)[\"']"),
    ("missing", r"Missing files in model .+?: (.+?)[\"']"),
)


def key_path(root: Path, name: str) -> Path:
    """Return where the model-signing key of that name is, or would be, below a `keys` folder."""
    return root / "model-signing" / f"{names.check(KEY_NAME, name, 'name of a key')}.pem"


def new_key(root: Path, name: str) -> str:
    """Make a P-256 key; return its public half in PEM, as `model_signing verify key` takes it.

    Raises:
        UserError: there is a key of that name, or the folder can't be written.
    """
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    write_private(key_path(root, name), pem_of(private))
    return public_pem(root, name)


def public_pem(root: Path, name: str) -> str:
    """Return the public half of a model-signing key in PEM.

    Raises:
        UserError: there is no such key, others can read it, or it is of another kind.
    """
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    path = _own_key(root, name)
    try:
        key = form.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError):
        raise UserError(f"the key {path} can't be read: it is no private key in PEM") from None
    if not isinstance(key, EllipticCurvePrivateKey):
        raise UserError(f"the key {path} is no P-256 key")
    public = key.public_key().public_bytes(
        form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo
    )
    return public.decode("ascii")


def sign_folder(folder: Path, root: Path, name: str) -> Path:
    """Sign every file of a release folder; return the signature, `model.sig` in that folder.

    Raises:
        UserError: the tool or the key is missing.
        IntegrityError: the folder holds links, or could not be hashed.
    """
    signing, _ = _tool()
    path = _own_key(root, name)
    listing(folder)
    target = folder / MODEL_SIGNATURE_FILE
    target.unlink(missing_ok=True)
    # Written in place by the tool: so it is made elsewhere, and appears whole.
    with tempfile.TemporaryDirectory(prefix="quantmint.") as place:
        staged = Path(place) / MODEL_SIGNATURE_FILE
        try:
            config = signing.Config().use_elliptic_key_signer(private_key=path)
            config.set_hashing_config(_strict(folder)).sign(folder, staged)
            write_whole(target, staged.read_bytes())
        except (ValueError, OSError) as error:
            raise IntegrityError(f"{folder} could not be signed: {error}") from error
    return target


def verify_folder_signature(folder: Path, public_key: Path) -> None:
    """Verify `model.sig` of a folder with a public key in PEM.

    Raises:
        UserError: the tool is missing.
        IntegrityError: anything else than full agreement, whatever the tool made of it.
    """
    _, verifying = _tool()
    target = folder / MODEL_SIGNATURE_FILE
    read_capped(target, SIGNATURE_LIMIT)
    listing(folder)
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
        config.set_hashing_config(_strict(folder)).verify(folder, target)
    # The tool's parsers fail in many ways; a failure to read a signature must never be a success.
    except Exception as error:
        raise IntegrityError(
            f"{target.name} is refused: {_told(error)}",
            mend="fetch the release again; if it stays so, tell its publisher",
        ) from error


def _told(error: Exception) -> str:
    """Say what the tool found, without its digests as Python writes them."""
    said = str(error)
    parts = [
        f"{what}: {', '.join(dict.fromkeys(found))}"[:300]
        for what, pattern in _FINDINGS
        if (found := re.findall(pattern, said))
    ]
    if type(error).__name__ == "InvalidSignature":
        parts = ["it was made with another key, or altered"]
    return "; ".join(parts) or f"{type(error).__name__}: {said[:300]}"


def check_listed(folder: Path, manifest: Manifest) -> str | None:
    """Verify `model.sig` of a release whose manifest lists the key for it.

    Returns a line about what was done; None where the manifest lists no such key.

    Raises:
        IntegrityError: the signature is missing or wrong.
    """
    if not any(file.path == OPENSSF_KEY_FILE for file in manifest.files):
        return None
    target = folder / MODEL_SIGNATURE_FILE
    if not target.is_file():
        raise IntegrityError(
            f"{MODEL_SIGNATURE_FILE} is missing, and the manifest lists the key that made it",
            mend="fetch the release again; if it stays so, tell its publisher",
        )
    if not is_installed():
        return (
            f"{MODEL_SIGNATURE_FILE} was not checked: that needs pip install 'quantmint[openssf]'"
        )
    verify_folder_signature(folder, folder / OPENSSF_KEY_FILE)
    return f"{MODEL_SIGNATURE_FILE} is right too"


def is_installed() -> bool:
    """Return whether OpenSSF's tool is there; it is not imported."""
    return find_spec("model_signing") is not None and find_spec("OpenSSL") is not None


def require(root: Path, name: str) -> None:
    """Find out early whether `sign_folder` can work.

    Raises:
        UserError: the tool or the key is missing.
    """
    _tool()
    public_pem(root, name)


def _strict(folder: Path) -> hashing.Config:
    from model_signing import hashing

    passed = (MODEL_SIGNATURE_FILE, STATUS, STATUS_SIGNATURE, DOWNLOADER)
    paths = [folder / name for name in passed]
    return hashing.Config().set_ignored_paths(paths=paths, ignore_git_paths=False)


def _own_key(root: Path, name: str) -> Path:
    path = key_path(root, name)
    if not path.is_file():
        raise UserError(
            f"there is no model-signing key {name!r}",
            mend=f"quantmint keys new {name} --model-signing",
        )
    require_private(path)
    return path


def _tool() -> tuple[ModuleType, ModuleType]:
    try:
        from model_signing import signing, verifying
    except ImportError as error:
        raise UserError(
            "the OpenSSF model-signing tool is not installed",
            mend="pip install 'quantmint[openssf]'",
        ) from error
    return signing, verifying
