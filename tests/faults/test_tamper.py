"""A signed release, tampered with by anybody on the way: all refused, each in words."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quantmint.errors import IntegrityError
from quantmint.registry.manifest.release import ENVELOPE_FILE, MANIFEST_FILE, PROVENANCE_FILE
from quantmint.registry.signing.envelope import ENVELOPE_LIMIT, PAYLOAD_LIMIT
from releases import Q4, Q8, T4, T8, Release, make_release, put

ORDER = 2**252 + 27742317777372353535851937790883648493  # of Ed25519's group
Spoil = Callable[[Release], object]


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return make_release(tmp_path)


def flip(path: Path, at: int = -3) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def swap(release: Release, one: str, two: str) -> None:
    aside = release.path("aside")
    release.path(one).rename(aside)
    release.path(two).rename(release.path(one))
    aside.rename(release.path(two))


def to_link(release: Release, name: str) -> None:
    outside = release.folder.parent / "outside"
    release.path(name).rename(outside)
    release.path(name).symlink_to(outside)


def to_fifo(release: Release, name: str) -> None:
    release.path(name).unlink()
    os.mkfifo(release.path(name))


def add(name: str) -> Spoil:
    def spoil(release: Release) -> None:
        release.path(name).parent.mkdir(parents=True, exist_ok=True)
        release.path(name).write_bytes(b"#!/bin/sh\n")

    return spoil


def write(name: str, change: Callable[[bytes], bytes]) -> Spoil:
    return lambda r: r.path(name).write_bytes(change(r.path(name).read_bytes()))


def envelope(change: Callable[[dict[str, Any]], object]) -> Spoil:
    return lambda r: r.edit_envelope(change)


def edited_payload(value: dict[str, Any]) -> None:
    manifest = json.loads(base64.b64decode(value["payload"]))
    manifest["release"] += 1
    payload = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    value["payload"] = base64.b64encode(payload).decode()


def signature_of(make: Callable[[Release], bytes]) -> Spoil:
    """Put another signature in the place of the right one."""
    return lambda r: r.edit_envelope(
        put("signatures", 0, "sig", value=base64.b64encode(make(r)).decode())
    )


def malleable(release: Release) -> bytes:
    """The same signature with its scalar larger by the group's order."""
    raw = release.signature
    scalar = int.from_bytes(raw[32:], "little") + ORDER
    return raw[:32] + scalar.to_bytes(32, "little")


def ecdsa(release: Release) -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    return key.sign(release.payload, ec.ECDSA(hashes.SHA256()))


def spare_bits(value: dict[str, Any]) -> None:
    """Spell the signature's base64 another way: the last letter has four spare bits."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    text = value["signatures"][0]["sig"]
    last = letters[letters.index(text[-3]) ^ 1]
    value["signatures"][0]["sig"] = f"{text[:-3]}{last}=="


def as_second_key(release: Release) -> None:
    """Claim that another trusted key made the signature."""
    other = release.keys.new("other")
    release.root.trust(other.public)
    release.edit_envelope(put("signatures", 0, "keyid", value=other.public.id))


def twice_in_envelope(data: bytes) -> bytes:
    return data.replace(b'{"payload":', b'{"payloadType":"x","payload":', 1)


def of_another_release(release: Release) -> None:
    other = make_release(release.folder.parent / "other", 3)
    release.path(ENVELOPE_FILE).write_bytes(other.path(ENVELOPE_FILE).read_bytes())
    release.root.trust(other.key.public)


def swapped_signature(release: Release) -> None:
    """The right key's signature under an older manifest."""
    old = release.signature
    release.resign(put("release", value=3))
    release.edit_envelope(
        put("signatures", 0, "sig", value=base64.b64encode(old).decode())
    )  # fmt: skip


ON_THE_WAY: dict[str, tuple[Spoil, str]] = {
    "a bit of a model": (lambda r: flip(r.path(Q4)), "its sha256 is not the manifest's"),
    "a bit of a model's header": (lambda r: flip(r.path(Q4), 40), "its sha256 is not"),
    "a model truncated": (write(Q4, lambda d: d[:-1]), "bytes, the manifest says"),
    "a model emptied": (write(Q4, lambda _: b""), "it has 0 bytes, the manifest says"),
    "a byte after a model": (write(Q4, lambda d: d + b"\0"), "bytes, the manifest says"),
    "a model removed": (lambda r: r.path(Q4).unlink(), f"{Q4} is refused: it is missing"),
    "a model renamed": (lambda r: r.path(Q4).rename(r.path("x.gguf")), "does not list it"),
    "two models swapped": (lambda r: swap(r, Q4, Q8), "its sha256 is not the manifest's"),
    "a link in place of a model": (lambda r: to_link(r, Q4), "a link or no regular file"),
    "a pipe in place of a model": (lambda r: to_fifo(r, Q4), "a link or no regular file"),
    "a link in place of the signature": (lambda r: to_link(r, ENVELOPE_FILE), "a link or no"),
    "a model added": (add("Phi-3-nano-Q2_K.gguf"), "the manifest does not list it"),
    "a preset added": (add("preset.ini"), "preset.ini is refused: the manifest does not list"),
    "a template added": (add("chat_template.jinja"), "the manifest does not list it"),
    "a git hook added": (add(".git/hooks/post-checkout"), "the manifest does not list it"),
    "a workflow added": (add(".github/workflows/x.yml"), "the manifest does not list it"),
    "a hidden file added": (add("tensors/.x"), "the manifest does not list it"),
    "a linked folder added": (
        lambda r: r.path("more").symlink_to(r.folder.parent), "a link or no regular file",
    ),
    "a table changed": (lambda r: flip(r.path(T4)), "Q4_K_M.json is refused: its sha256"),
    "two tables swapped": (lambda r: swap(r, T4, T8), "Q8_0.json is refused: it has"),
    "a table removed": (lambda r: r.path(T4).unlink(), "Q4_K_M.json is refused: it is missing"),
    "the provenance changed": (lambda r: flip(r.path(PROVENANCE_FILE)), "its sha256 is not"),
    "the provenance removed": (lambda r: r.path(PROVENANCE_FILE).unlink(), "it is missing"),
    "the plain manifest changed": (
        lambda r: flip(r.path(MANIFEST_FILE)), "it is not the manifest that was signed",
    ),
    "the plain manifest removed": (lambda r: r.path(MANIFEST_FILE).unlink(), "it is missing"),
    "the plain manifest huge": (
        write(MANIFEST_FILE, lambda d: d + bytes(PAYLOAD_LIMIT)), "larger than 1048576 bytes",
    ),
    "no signature": (lambda r: r.path(ENVELOPE_FILE).unlink(), "dsse.json is refused: it is miss"),
    "the envelope empty": (write(ENVELOPE_FILE, lambda _: b""), "no strict JSON"),
    "the envelope {}": (write(ENVELOPE_FILE, lambda _: b"{}"), "other fields than payload"),
    "the envelope null": (write(ENVELOPE_FILE, lambda _: b"null"), "other fields than payload"),
    "the envelope a list": (write(ENVELOPE_FILE, lambda _: b"[]"), "other fields than payload"),
    "the envelope truncated": (write(ENVELOPE_FILE, lambda d: d[:-1]), "no strict JSON"),
    "the envelope halved": (write(ENVELOPE_FILE, lambda d: d[: len(d) // 2]), "no strict JSON"),
    "a line end after it": (write(ENVELOPE_FILE, lambda d: d + b"\n"), "not canonical"),
    "a second value after it": (write(ENVELOPE_FILE, lambda d: d + d), "no strict JSON"),
    "a mark before it": (write(ENVELOPE_FILE, lambda d: b"\xef\xbb\xbf" + d), "no strict JSON"),
    "no UTF-8": (write(ENVELOPE_FILE, lambda d: b"\xff" + d), "no strict JSON"),
    "UTF-16": (write(ENVELOPE_FILE, lambda d: d.decode().encode("utf-16")), "no strict JSON"),
    "spaces in it": (write(ENVELOPE_FILE, lambda d: d.replace(b":", b": ")), "not canonical"),
    "nested without end": (write(ENVELOPE_FILE, lambda _: b"[" * 200_000), "nested too deep"),
    "the envelope huge": (
        write(ENVELOPE_FILE, lambda d: d + b" " * ENVELOPE_LIMIT), "is refused: it is larger",
    ),
    "a key twice in the envelope": (write(ENVELOPE_FILE, twice_in_envelope), "stands twice"),
    "an unknown field in it": (envelope(put("alg", value="none")), "other fields than payload"),
    "an algorithm in a signature": (
        envelope(put("signatures", 0, "alg", value="HS512")), "other fields than keyid and sig",
    ),
    "a certificate in a signature": (
        envelope(put("signatures", 0, "cert", value="x")), "other fields than keyid and sig",
    ),
    "no signatures": (envelope(put("signatures", value=[])), "1 to 16 signatures"),
    "a thousand signatures": (
        envelope(lambda v: v["signatures"].extend(v["signatures"] * 400)), "too large",
    ),
    "seventeen signatures": (
        envelope(lambda v: v["signatures"].extend(v["signatures"] * 16)), "1 to 16 signatures",
    ),
    "a signature twice": (
        envelope(lambda v: v["signatures"].extend(v["signatures"])), "a key stands in it twice",
    ),
    "signatures no list": (envelope(put("signatures", value={"0": 1})), "1 to 16 signatures"),
    "a signature no object": (envelope(put("signatures", 0, value="x")), "other fields than keyid"),
    "a short key id": (envelope(put("signatures", 0, "keyid", value="ab")), "64 lower-case"),
    "a number as key id": (envelope(put("signatures", 0, "keyid", value=5)), "64 lower-case"),
    "the id of another key": (as_second_key, "is wrong"),
    "another payload type": (envelope(put("payloadType", value="text/plain")), "its payload is no"),
    "the type of provenance": (
        envelope(put("payloadType", value="application/vnd.in-toto+json")), "its payload is no",
    ),
    "provenance as the manifest": (
        lambda r: r.path(ENVELOPE_FILE).write_bytes(r.path(PROVENANCE_FILE).read_bytes()),
        "its payload is no",
    ),
    "the payload edited": (envelope(edited_payload), "was changed after it was signed"),
    "the payload emptied": (envelope(put("payload", value="")), "was changed after it was"),
    "the payload a number": (envelope(put("payload", value=7)), "the payload is no text"),
    "the payload no base64": (envelope(put("payload", value="{}")), "base64 of the payload"),
    "base64 with a line end": (
        envelope(lambda v: v.update(payload=v["payload"] + "\n")), "base64 of the payload",
    ),
    "base64 in another spelling": (envelope(spare_bits), "not in its one spelling"),
    "a bit of the signature": (
        signature_of(lambda r: bytes([r.signature[0] ^ 1]) + r.signature[1:]), "is wrong",
    ),
    "a signature of zeros": (signature_of(lambda _: bytes(64)), "is wrong"),
    "a signature of the point at rest": (signature_of(lambda _: b"\1" + bytes(63)), "is wrong"),
    "a signature cut": (signature_of(lambda r: r.signature[:63]), "has 63 bytes"),
    "a signature stretched": (signature_of(lambda r: r.signature + b"\0"), "has 65 bytes"),
    "a signature grown by the order": (signature_of(malleable), "is wrong"),
    "an ECDSA signature": (signature_of(ecdsa), "an Ed25519 signature has 64"),
    "an HMAC with the public key": (
        signature_of(lambda r: hmac.digest(r.key.public.raw, r.payload, hashlib.sha512)),
        "is wrong",
    ),
    "a signature of the bare payload": (
        signature_of(lambda r: r.key.sign(r.payload)), "is wrong",
    ),
    "another manifest's signature": (swapped_signature, "is wrong"),
    "another release's manifest": (of_another_release, "not the manifest that was signed"),
}  # fmt: skip


@pytest.mark.parametrize("name", ON_THE_WAY)
def test_what_anybody_can_do(release: Release, name: str) -> None:
    spoil, says = ON_THE_WAY[name]
    assert release.verify(strict=True).signer == release.key.public.id
    spoil(release)
    with pytest.raises(IntegrityError) as refusal:
        release.verify()
    assert says in refusal.value.what
    assert release.root.policy().seen == {}
