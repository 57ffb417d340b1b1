"""The OpenSSF `model-signing` signature beside ours, for those who verify with that tool.

Optional: `pip install 'quantmint[openssf]'`. It takes ECDSA keys on P-256, so it has a key of
its own (`keys/model-signing/<name>.pem`) that counts nowhere else. Both sides are made strict:
nothing is ignored but the signature itself (by default the tool passes over `.git*`). It knows no
release numbers and no expiry: our own manifest stays what a pull believes.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from quantmint import names
from quantmint.errors import IntegrityError, UserError
from quantmint.files import write_whole
from quantmint.registry.keys import KEY_NAME, pem_of, require_private, write_private
from quantmint.registry.manifest.release import MODEL_SIGNATURE_FILE
from quantmint.registry.signing.folder import listing, read_capped

if TYPE_CHECKING:
    from model_signing import hashing

SIGNATURE_LIMIT = 1 << 20


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
    staged = root / "model-signing" / f".{name}.{MODEL_SIGNATURE_FILE}"
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=path)
        config.set_hashing_config(_strict(target)).sign(folder, staged)
        write_whole(target, staged.read_bytes())
    except (ValueError, OSError) as error:
        raise IntegrityError(f"{folder} could not be signed: {error}") from error
    finally:
        staged.unlink(missing_ok=True)
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
        config.set_hashing_config(_strict(target)).verify(folder, target)
    # The tool's parsers fail in many ways; a failure to read a signature must never be a success.
    except Exception as error:
        raise IntegrityError(
            f"{target.name} is refused: {type(error).__name__}: {str(error)[:300]}",
            mend="fetch the release again; if it stays so, tell its publisher",
        ) from error


def _strict(signature: Path) -> hashing.Config:
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[signature], ignore_git_paths=False)


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
