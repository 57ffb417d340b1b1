"""Signing a release, and deciding whether to believe one.

The order is fixed: envelope -> signatures -> manifest -> scope -> expected name -> yanks and
rollback -> expiry. `verify_release` is pure: bytes and a policy in, a verdict or an error out.
`accept_release` reads the policy before and notes the release afterwards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from quantmint.errors import IntegrityError
from quantmint.registry.manifest.codec import from_bytes, to_bytes
from quantmint.registry.manifest.release import (
    ENVELOPE_FILE,
    MANIFEST_FILE,
    PAYLOAD_TYPE,
    Manifest,
)
from quantmint.registry.manifest.types import moment_of
from quantmint.registry.signing.ed25519 import SigningKey
from quantmint.registry.signing.envelope import Envelope, open_envelope, seal
from quantmint.registry.trust_policy import Policy, Seen, Trusted, two_faces
from quantmint.registry.trust_root import TrustRoot


@dataclass(frozen=True, slots=True)
class Expect:
    """What was asked for: the model, and the publisher and release number if they were named."""

    model: str
    publisher: str | None = None
    release: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A release that may be used. `signer` is the id of the key that vouches for it, or None.

    `sha256` is the manifest's, as others name it in a yank; each warning is one sentence.
    """

    manifest: Manifest
    sha256: str
    signer: str | None
    warnings: tuple[str, ...] = ()


def sign_release(manifest: Manifest, keys: Sequence[SigningKey]) -> dict[str, bytes]:
    """Return the manifest's two files by name: plain, and in a signed envelope.

    Raises:
        IntegrityError: no reader would take them (too large, no key).
    """
    payload = to_bytes(manifest)
    from_bytes(Manifest, payload, what="the manifest")
    return {MANIFEST_FILE: payload, ENVELOPE_FILE: seal(payload, PAYLOAD_TYPE, keys)}


def verify_release(
    envelope: bytes,
    policy: Policy,
    *,
    expect: Expect,
    now: datetime | None = None,
    strict: bool = False,
) -> Verified:
    """Decide whether a release may be used.

    Refused always: what can't be parsed, a wrong signature of a known key, a revoked key, a key
    that does not count for this publisher, another model or release than expected, a yanked
    release, one older than was seen (unless `expect` names its number). A signer that nobody
    trusts and an expired release warn, and are refused with `strict`; so is such a signer where
    `Policy.must_be_signed`.

    Raises:
        IntegrityError: it may not be used; the message says why.
    """
    sealed = open_envelope(envelope, PAYLOAD_TYPE)
    signers = good_signers(sealed, policy)
    manifest = from_bytes(Manifest, sealed.payload, what="the manifest")
    _check_expected(manifest, expect)
    signer = _signer_for(manifest.identity, signers)
    warnings = list(_history(manifest, sealed.payload, policy, expect, now, strict=strict))
    if signer is None:
        said = f"the release is signed with key {sealed.signatures[0].keyid}, which nobody trusts"
        _refuse_unsigned(said, manifest, policy, expect, strict=strict)
        warnings.insert(0, f"{said} here: its signature was not checked")
    digest = hashlib.sha256(sealed.payload).hexdigest()
    return Verified(manifest=manifest, sha256=digest, signer=signer, warnings=tuple(warnings))


def unsigned_release(
    plain: bytes,
    policy: Policy,
    *,
    expect: Expect,
    now: datetime | None = None,
    strict: bool = False,
) -> Verified:
    """Read the manifest of a release that has no signature file at all; always with a warning.

    Raises:
        IntegrityError: with `strict`, or where `Policy.must_be_signed`; else see `verify_release`.
    """
    manifest = from_bytes(Manifest, plain, what="the manifest")
    _check_expected(manifest, expect)
    said = "the release is not signed"
    _refuse_unsigned(said, manifest, policy, expect, strict=strict)
    warnings = _history(manifest, plain, policy, expect, now, strict=strict)
    digest = hashlib.sha256(plain).hexdigest()
    said = f"{said}: nobody vouches for it"
    return Verified(manifest=manifest, sha256=digest, signer=None, warnings=(said, *warnings))


def accept_release(
    root: TrustRoot,
    envelope: bytes,
    *,
    expect: Expect,
    now: datetime | None = None,
    strict: bool = False,
) -> Verified:
    """Verify a release under the home's policy, and remember its number if a trusted key signed.

    Raises:
        IntegrityError: see `verify_release`.
        UserError: the trust root may have been written by others.
    """
    verified = verify_release(envelope, root.policy(), expect=expect, now=now, strict=strict)
    if verified.signer is not None:
        manifest = verified.manifest
        yanked = frozenset(row.manifest_sha256 for row in manifest.yanked)
        root.remember(manifest.identity, Seen(manifest.release, verified.sha256, yanked))
    return verified


def good_signers(sealed: Envelope, policy: Policy) -> tuple[Trusted, ...]:
    """Return the trusted keys that signed; none if only unknown keys did.

    Raises:
        IntegrityError: a trusted key's signature is wrong, or no key but a revoked one is known.
    """
    good: list[Trusted] = []
    revoked: list[str] = []
    for signature in sealed.signatures:
        trusted = policy.trusted.get(signature.keyid)
        if signature.keyid in policy.revoked:
            revoked.append(signature.keyid)
        elif trusted is not None and trusted.key.id == signature.keyid:
            if not trusted.key.accepts(signature.raw, sealed.signed):
                raise IntegrityError(
                    f"the signature of key {signature.keyid[:16]} is wrong: the release was"
                    " changed after it was signed, or the signature is another document's",
                    mend="fetch the release again; if it stays so, tell its publisher",
                )
            good.append(trusted)
    if revoked and not good:
        raise IntegrityError(
            f"the release is signed with key {revoked[0][:16]}, which is revoked"
            f"{_because(policy.revoked[revoked[0]])}",
            mend="ask the publisher for a release under the new key",
        )
    return tuple(good)


def _signer_for(identity: str, signers: Sequence[Trusted]) -> str | None:
    fit = [trusted.key.id for trusted in signers if trusted.covers(identity)]
    if signers and not fit:
        raise IntegrityError(
            f"key {signers[0].key.id[:16]} is not trusted for {identity}, only for"
            f" {', '.join(signers[0].scopes)}",
            mend=f"if it should be: quantmint keys trust KEY --for {identity}",
        )
    return fit[0] if fit else None


def _refuse_unsigned(
    said: str, manifest: Manifest, policy: Policy, expect: Expect, *, strict: bool
) -> None:
    # An impostor's manifest may claim any publisher: with none asked for, the model's name counts.
    publisher = expect.publisher or manifest.publisher
    needed = policy.must_be_signed(expect.model, publisher)
    if strict or needed or policy.must_be_signed(expect.model, expect.publisher):
        raise IntegrityError(
            said,
            mend="compare the id with what the publisher says, then: quantmint keys trust KEY"
            f" --for {publisher}/{expect.model}",
        )


def _check_expected(manifest: Manifest, expect: Expect) -> None:
    wanted = {"model": expect.model, "publisher": expect.publisher, "release": expect.release}
    for key, value in wanted.items():
        found = getattr(manifest, key)
        if value is not None and found != value:
            raise IntegrityError(
                f"the release is of {key} {found!r}, where {value!r} was asked for",
                mend="check the name; a registry that mixes up releases is not to be used",
            )


def _history(
    manifest: Manifest,
    payload: bytes,
    policy: Policy,
    expect: Expect,
    now: datetime | None,
    *,
    strict: bool,
) -> tuple[str, ...]:
    """Refuse what was yanked or is older than what was seen; return a warning if it expired."""
    seen = policy.last_seen(manifest.identity)
    if seen is not None:
        digest = hashlib.sha256(payload).hexdigest()
        _check_seen(manifest, digest, seen, pinned=expect.release is not None)
    if (now or datetime.now(UTC)) <= moment_of(manifest.expires):
        return ()
    expired = (
        f"{manifest.identity} release {manifest.release} expired on {manifest.expires}:"
        " there may be a newer one that the registry holds back"
    )
    if strict:
        raise IntegrityError(expired, mend="pull without --strict, or ask for a newer release")
    return (expired,)


def _check_seen(manifest: Manifest, digest: str, seen: Seen, *, pinned: bool) -> None:
    if digest in seen.yanked:
        raise IntegrityError(
            f"{manifest.identity} release {manifest.release} was withdrawn by its publisher",
            mend=f"use release {seen.release} or a later one",
        )
    if manifest.release == seen.release and digest != seen.manifest_sha256:
        raise two_faces(manifest.identity, manifest.release)
    if manifest.release < seen.release and not pinned:
        raise IntegrityError(
            f"{manifest.identity} release {manifest.release} is offered as the newest, but"
            f" release {seen.release} was seen before: the registry went back in time",
            mend=f"to get the old one on purpose, name it: ...@{manifest.release}",
        )


def _because(reason: str) -> str:
    return f" ({reason!r})" if reason else ""
