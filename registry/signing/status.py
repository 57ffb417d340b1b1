"""Who signed a status file, and whether that counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from quantmint.errors import IntegrityError
from quantmint.registry.publish.files import STATUS_SIGNATURE
from quantmint.registry.publish.status import STATUS_TYPE
from quantmint.registry.signing.envelope import Envelope, open_envelope
from quantmint.registry.trust_policy import Policy


def covered_by(
    sealed: Envelope, policy: Policy, identities: Sequence[str]
) -> tuple[tuple[str, ...], str]:
    """Return for which `publisher/model` a trusted key signed it; or none, and why.

    Raises:
        IntegrityError: a trusted key's signature is wrong: the file was altered, or forged.
    """
    doubt = f"it is signed with key {sealed.signatures[0].keyid[:16]}, which nobody trusts here"
    covered: list[str] = []
    for signature in sealed.signatures:
        trusted = policy.trusted.get(signature.keyid)
        if signature.keyid in policy.revoked:
            doubt = f"it is signed with key {signature.keyid[:16]}, which is revoked"
        elif trusted is not None and trusted.key.id == signature.keyid:
            if not trusted.key.accepts(signature.raw, sealed.signed):
                raise IntegrityError(
                    f"{STATUS_SIGNATURE} is forged or was altered: the signature of key"
                    f" {signature.keyid[:16]} is wrong",
                    mend="tell the publisher; do not use this registry meanwhile",
                )
            found = [identity for identity in identities if trusted.covers(identity)]
            covered += found
            if not found:
                doubt = f"its key {signature.keyid[:16]} is trusted for other models only"
    return tuple(dict.fromkeys(covered)), doubt


def status_believer(policy: Policy, identity: str) -> Callable[[bytes], bytes | None]:
    """Return what opens the envelope of a publisher's own status file.

    It gives the signed bytes, or None where revoked keys alone signed them: then no withdrawal
    that the file says is carried on. It raises IntegrityError if nobody signed them whom this home
    trusts: whoever can write to a registry could else have withdrawals signed by its publisher.
    """

    def believe(data: bytes) -> bytes | None:
        sealed = open_envelope(data, STATUS_TYPE, what=STATUS_SIGNATURE)
        covered, doubt = covered_by(sealed, policy, [identity])
        if covered:
            return sealed.payload
        if all(signature.keyid in policy.revoked for signature in sealed.signatures):
            return None
        raise IntegrityError(
            f"the status file of {identity} is not the publisher's: {doubt}",
            mend="see who wrote to the registry; then `quantmint keys trust` that key, or restore "
            "the status file and its signature from an earlier commit",
        )

    return believe
