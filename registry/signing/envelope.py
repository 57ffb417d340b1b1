"""DSSE envelopes: a payload, its type and signatures over both.

Format: Dead Simple Signing Envelope v1 (secure-systems-lab/dsse, protocol.md and envelope.md),
with less freedom than it gives: canonical JSON, standard base64 of one spelling, one signature
per key, the ids of keys in full. The type is signed too, so a signature under a document of one
kind is never one under another.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from quantmint import names
from quantmint.errors import IntegrityError
from quantmint.files import canonical_json
from quantmint.registry.signing.ed25519 import SIGNATURE_SIZE, SigningKey
from quantmint.registry.strict_json import parse_canonical

PAYLOAD_LIMIT: Final = 1 << 20
SIGNATURES_LIMIT: Final = 1 << 16
ENVELOPE_LIMIT: Final = PAYLOAD_LIMIT // 3 * 4 + 4 + SIGNATURES_LIMIT
MOST_SIGNATURES: Final = 16


@dataclass(frozen=True, slots=True)
class Signature:
    """A claim that the key of that id signed; the id is not itself signed, only a hint."""

    keyid: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """An envelope as it was read. Nothing in it is to be believed before a key accepted it."""

    payload: bytes
    payload_type: str
    signatures: tuple[Signature, ...]

    @property
    def signed(self) -> bytes:
        """The bytes that the signatures are over."""
        return pre_authentication(self.payload_type, self.payload)


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding (PAE) of a payload and its type."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(payload: bytes, payload_type: str, keys: Sequence[SigningKey]) -> bytes:
    """Return an envelope around `payload`, signed with each of `keys`.

    Raises:
        IntegrityError: the payload is larger than any reader would take, or there is no key.
    """
    message = pre_authentication(payload_type, payload)
    rows = [
        {"keyid": key.public.id, "sig": base64.b64encode(key.sign(message)).decode("ascii")}
        for key in sorted(keys, key=lambda key: key.public.id)
    ]
    data = canonical_json(
        {
            "payload": base64.b64encode(payload).decode("ascii"),
            "payloadType": payload_type,
            "signatures": rows,
        }
    )
    open_envelope(data, payload_type, what="what would be signed")  # what we refuse, we don't make
    return data


def open_envelope(data: bytes, payload_type: str, *, what: str = "the signature file") -> Envelope:
    """Read an envelope whose payload must be of `payload_type`; verify nothing yet.

    Raises:
        IntegrityError: it is too large, malformed, or of another type.
    """
    value = parse_canonical(data, limit=ENVELOPE_LIMIT, what=what)
    if not isinstance(value, dict) or set(value) != {"payload", "payloadType", "signatures"}:
        raise _refused(what, "it has other fields than payload, payloadType and signatures")
    if value["payloadType"] != payload_type:
        raise _refused(what, f"its payload is no {payload_type}")
    payload = _decode(value["payload"], what, "the payload")
    if len(payload) > PAYLOAD_LIMIT or len(data) - len(value["payload"]) > SIGNATURES_LIMIT:
        raise _refused(what, "its payload or its list of signatures is too large")
    rows = value["signatures"]
    if not isinstance(rows, list) or not 1 <= len(rows) <= MOST_SIGNATURES:
        raise _refused(what, f"it must have 1 to {MOST_SIGNATURES} signatures")
    signatures = tuple(_signature(row, what) for row in rows)
    if len({signature.keyid for signature in signatures}) != len(signatures):
        raise _refused(what, "a key stands in it twice")
    return Envelope(payload, payload_type, signatures)


def _signature(row: Any, what: str) -> Signature:  # noqa: ANN401
    if not isinstance(row, dict) or set(row) != {"keyid", "sig"}:
        raise _refused(what, "a signature has other fields than keyid and sig")
    keyid, raw = row["keyid"], _decode(row["sig"], what, "a signature")
    if not isinstance(keyid, str) or names.DIGEST.fullmatch(keyid) is None:
        raise _refused(what, "the id of a key is not 64 lower-case hexadecimal digits")
    if len(raw) != SIGNATURE_SIZE:
        raise _refused(what, f"a signature has {len(raw)} bytes, an Ed25519 signature has 64")
    return Signature(keyid, raw)


def _decode(text: Any, what: str, which: str) -> bytes:  # noqa: ANN401
    if not isinstance(text, str):
        raise _refused(what, f"{which} is no text")
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _refused(what, f"the base64 of {which} is damaged") from None
    if base64.b64encode(raw).decode("ascii") != text:  # spare bits of the last letter
        raise _refused(what, f"the base64 of {which} is not in its one spelling")
    return raw


def _refused(what: str, why: str) -> IntegrityError:
    return IntegrityError(
        f"{what} is refused: {why}",
        mend="fetch the release again; if it stays so, tell its publisher",
    )
