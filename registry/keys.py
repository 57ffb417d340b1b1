"""The private keys of this home: `keys/private/<name>.pem`, PKCS8, for their owner alone.

A key appears whole or not at all, and never replaces another one. Nothing prints or logs it.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from quantmint import names
from quantmint.errors import UserError, nearest
from quantmint.files import fsync_folder, full_disk_explained, temporary_name
from quantmint.registry.signing.ed25519 import KEY_FILE_LIMIT, PublicKey, SigningKey
from quantmint.registry.trust_root import TrustRoot

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_NAME: Final = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
DEFAULT_NAME: Final = "release"
PASSPHRASE: Final = "QUANTMINT_KEY_PASSPHRASE"  # noqa: S105 - the name of a variable
_ENCRYPTED: Final = b"BEGIN ENCRYPTED PRIVATE KEY"


class KeyFolder:
    """The `keys` folder of a home; made with mode 0700 when the first key is."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.private = root / "private"

    def names(self) -> list[str]:
        """Return the names of the private keys, in order."""
        return sorted(path.stem for path in self.private.glob("[!.]*.pem"))

    def path(self, name: str) -> Path:
        """Return where the key of that name is, or would be."""
        return self.private / f"{names.check(KEY_NAME, name, 'name of a key')}.pem"

    def new(
        self,
        name: str = DEFAULT_NAME,
        passphrase: str | None = None,
        *,
        announce: Callable[[PublicKey], None] | None = None,
    ) -> SigningKey:
        """Make a key; with a passphrase it is encrypted on disk.

        `announce` gets its public half before the private one is written.

        Raises:
            UserError: there is a key of that name, or the folder can't be written.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        path = self.path(name)
        private = Ed25519PrivateKey.generate()
        key = SigningKey(name, private)
        if announce is not None:
            announce(key.public)
        write_private(path, pem_of(private, passphrase))
        return key

    def is_encrypted(self, name: str = DEFAULT_NAME) -> bool:
        """Return whether the key needs a passphrase.

        Raises:
            UserError: there is none, or others can read it.
        """
        return _ENCRYPTED in self._read(self.path(name), name)

    def load(self, name: str = DEFAULT_NAME, passphrase: str | None = None) -> SigningKey:
        """Read a key.

        Raises:
            UserError: there is none, others can read it, or the passphrase is not its own.
        """
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        path = self.path(name)
        data = self._read(path, name)
        encrypted = _ENCRYPTED in data
        if encrypted and not passphrase:
            raise UserError(
                f"the key {name!r} is encrypted", mend=f"set {PASSPHRASE} to its passphrase"
            )
        word = passphrase.encode() if encrypted and passphrase else None
        try:
            key = load_pem_private_key(data, word)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            why = "its passphrase is another one" if encrypted else "it is no private key in PEM"
            raise UserError(f"the key {path} can't be read: {why}") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise UserError(f"the key {path} is no Ed25519 key", mend="quantmint keys new NAME")
        return SigningKey(name, key)

    def _read(self, path: Path, name: str) -> bytes:
        for folder in (self.root, self.private):
            if folder.exists():
                require_private(folder)
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            known = self.names()
            hint = nearest(name, known) if known else ""
            raise UserError(
                f"there is no key {name!r} in {self.private}{hint}",
                mend=f"quantmint keys new {name}",
            ) from None
        except OSError as error:
            raise UserError(f"the key {path} can't be read: {error.strerror}") from None
        with open(handle, "rb") as file:  # noqa: PTH123 - a descriptor, no path
            require_private(path, os.fstat(file.fileno()))
            return file.read(KEY_FILE_LIMIT)


def new_trusted_key(root: Path, name: str, passphrase: str | None = None) -> SigningKey:
    """Make a key below the `keys` folder `root`, and trust it for every model.

    Trust comes first: killed in between, the same command makes another key, and the trust in
    the first one means nothing, for nobody has its private half.

    Raises:
        UserError: see `KeyFolder.new`.
    """
    folder, trust = KeyFolder(root), TrustRoot(root)
    if folder.path(name).exists():
        raise _exists(folder.path(name))
    announced: list[str] = []

    def announce(key: PublicKey) -> None:
        announced.append(trust.trust(key, label=name).key.id)

    try:
        return folder.new(name, passphrase, announce=announce)
    except BaseException:
        for keyid in announced:
            trust.forget(keyid)
        raise


def load_signer(root: Path, name: str, passphrase: str | None = None) -> SigningKey:
    """Read a private key of the `keys` folder `root`, to sign with it.

    Raises:
        UserError: see `KeyFolder.load`; or the key was revoked, so nobody would believe it.
    """
    key = KeyFolder(root).load(name, passphrase)
    if key.public.id in TrustRoot(root).policy().revoked:
        raise UserError(
            f"the key {name!r} is revoked: what it signs is refused",
            mend="quantmint keys new NAME, and sign with that one",
        )
    return key


def pem_of(
    private: Ed25519PrivateKey | EllipticCurvePrivateKey, passphrase: str | None = None
) -> bytes:
    """Return a private key as PKCS8 PEM, encrypted if there is a passphrase."""
    from cryptography.hazmat.primitives import serialization as form

    lock: form.KeySerializationEncryption = form.NoEncryption()
    if passphrase:
        lock = form.BestAvailableEncryption(passphrase.encode())
    return private.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, lock)


def passphrase_from_environment() -> str | None:
    """Return what `QUANTMINT_KEY_PASSPHRASE` holds, if anything."""
    return os.environ.get(PASSPHRASE) or None


def write_private(path: Path, data: bytes) -> None:
    """Write a file that its owner alone can read; an existing one is never replaced.

    Raises:
        UserError: there is one already, or the folder can't be written.
    """
    try:
        for folder in (path.parent.parent, path.parent):
            folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        require_private(path.parent)
        require_private(path.parent.parent)
        staged = temporary_name(path)
        try:
            with full_disk_explained(path.parent):
                handle = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with open(handle, "wb") as file:  # noqa: PTH123 - a descriptor, no path
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            os.link(staged, path)  # refuses to replace, where a rename would not
        finally:
            with contextlib.suppress(FileNotFoundError):
                staged.unlink()
        fsync_folder(path.parent)
        fsync_folder(path.parent.parent)
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        raise UserError(
            f"the key {path} can't be written: {error.strerror}",
            mend="set QUANTMINT_HOME to a folder of your own",
        ) from error


def _exists(path: Path) -> UserError:
    return UserError(
        f"there is a key {path.stem!r} already; it was left as it is",
        mend="give the new key another name: quantmint keys new NAME",
    )


def require_private(path: Path, found: os.stat_result | None = None) -> None:
    """Refuse a file or folder that anybody but its owner can read or write.

    Raises:
        UserError: its mode or its owner is another one.
    """
    found = found or path.lstat()
    if found.st_uid not in {os.geteuid(), 0} or not (
        stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)
    ):
        raise UserError(f"{path} is refused: it belongs to somebody else, or is no plain file")
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        right = "700" if stat.S_ISDIR(found.st_mode) else "600"
        raise UserError(
            f"{path} is refused: others can use it (mode {mode:04o}), so its keys may be known",
            mend=f"chmod {right} {path}  (and make a new key if others could have read it)",
        )
