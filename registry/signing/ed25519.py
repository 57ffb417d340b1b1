"""Ed25519 keys, and nothing else: an algorithm is never chosen by what is to be verified.

The id of a key is the sha256 of its public half as DER `SubjectPublicKeyInfo` (RFC 8410), what
`openssl pkey -pubin -outform DER | sha256sum` prints.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from quantmint.errors import UserError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PREFIX: Final = "ed25519:"
SIGNATURE_SIZE: Final = 64
KEY_FILE_LIMIT: Final = 4096
_PRIME: Final = (1 << 255) - 19
# For these points of order 1, 2, 4 and 8 anybody can make "signatures", and OpenSSL accepts them.
_SMALL_ORDER: Final = frozenset(
    bytes.fromhex(y + sign)
    for y, signs in (
        ("01" + "00" * 30, ("00", "80")),
        ("ec" + "ff" * 30, ("7f", "ff")),
        ("00" * 31, ("00", "80")),
        ("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc", ("05", "85")),
        ("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03", ("7a", "fa")),
    )
    for sign in signs
)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The public half of a key: the 32 bytes of RFC 8032."""

    raw: bytes

    def __post_init__(self) -> None:
        number = int.from_bytes(self.raw, "little") & ((1 << 255) - 1)
        if len(self.raw) != 32 or number >= _PRIME or self.raw in _SMALL_ORDER:
            raise UserError(
                "this is no usable Ed25519 public key: anybody could sign for it",
                mend="ask the publisher for the output of `quantmint keys show`",
            )

    @property
    def der(self) -> bytes:
        """The key as DER `SubjectPublicKeyInfo`."""
        return bytes.fromhex("302a300506032b6570032100") + self.raw

    @property
    def id(self) -> str:
        """The name of the key: 64 hexadecimal digits."""
        return hashlib.sha256(self.der).hexdigest()

    @property
    def text(self) -> str:
        """The key in one word: `ed25519:` and base64."""
        return PREFIX + base64.b64encode(self.raw).decode("ascii")

    @property
    def pem(self) -> str:
        """The key as other tools take it."""
        body = base64.b64encode(self.der).decode("ascii")
        return f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n"

    def accepts(self, signature: bytes, message: bytes) -> bool:
        """Return whether `signature` is this key's over exactly `message`."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        if len(signature) != SIGNATURE_SIZE:
            return False
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True


class SigningKey:
    """The private half of a key, in memory only. It has no text form, so no log can hold it."""

    __slots__ = ("_private", "name", "public")

    def __init__(self, name: str, private: Ed25519PrivateKey) -> None:
        self.name = name
        self._private = private
        self.public = PublicKey(private.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of the signature over `message`; the same every time."""
        return self._private.sign(message)

    def __repr__(self) -> str:
        return f"SigningKey({self.name!r}, {self.public.id[:16]})"

    def __reduce__(self) -> str:
        raise TypeError("a private key is not pickled")


def read_public_key(text: str) -> PublicKey:
    """Read a public key: `ed25519:<base64>`, or PEM `BEGIN PUBLIC KEY`.

    Raises:
        UserError: it is no Ed25519 public key; a private key is refused by name.
    """
    text = text.strip()
    if "PRIVATE KEY" in text:
        raise UserError(
            "this is a private key: it must never leave its owner's machine",
            mend="its owner runs `quantmint keys show` and hands on what that prints",
        )
    if len(text) > KEY_FILE_LIMIT:
        raise _no_key(f"{len(text)} characters")
    if text.startswith(PREFIX):
        return PublicKey(_raw(text.removeprefix(PREFIX)))
    return PublicKey(_raw_of_pem(text))


def _raw(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _no_key("its base64 is damaged") from None
    if len(raw) != 32 or base64.b64encode(raw).decode("ascii") != text:
        raise _no_key(f"it holds {len(raw)} bytes where a key has 32")
    return raw


def _raw_of_pem(text: str) -> bytes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise _no_key("neither `ed25519:...` nor PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise _no_key(f"a key of another kind: {type(key).__name__.removesuffix('PublicKey')}")
    return key.public_bytes_raw()


def _no_key(why: str) -> UserError:
    return UserError(
        f"this is no Ed25519 public key ({why})",
        mend="ask the publisher for the output of `quantmint keys show`",
    )
