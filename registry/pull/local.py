"""What is here already: found by a reference without asking anybody, and judged again."""

from __future__ import annotations

from dataclasses import dataclass

from quantmint.errors import IntegrityError, UserError
from quantmint.registry.pull.hub import offline
from quantmint.registry.pull.kept import Kept, all_kept
from quantmint.registry.pull.offers import Offer
from quantmint.registry.pull.places import File
from quantmint.registry.pull.reference import Reference
from quantmint.registry.pull.withdrawn import release_withdrawn
from quantmint.registry.signing.release import Expect, verify_release
from quantmint.registry.store import Store
from quantmint.registry.trust_policy import Policy
from quantmint.registry.trust_root import TrustRoot


class NotHereError(UserError):
    """What a reference names is not on this machine."""


@dataclass(frozen=True, slots=True)
class Here:
    """A release that is here, and its variants whose files are."""

    kept: Kept
    offers: tuple[Offer, ...]
    warnings: tuple[str, ...] = ()


def find(
    store: Store,
    reference: Reference,
    root: TrustRoot,
    *,
    strict: bool = False,
    only_tell: bool = False,
) -> Here:
    """Return what a reference names among what was pulled or made here: the newest release.

    It is judged by the trust policy as it is now: a key may have been revoked meanwhile.

    Args:
        store: an open store.
        reference: what is looked for.
        root: whom this home trusts.
        strict: refuse what nobody trusted has signed.
        only_tell: what may no longer be used is found too, with a warning that says so.

    Raises:
        NotHereError: it is not here. IntegrityError: it may no longer be used.
    """
    policy = root.policy()
    rows = [kept for kept in matching(store, reference) if _offers(store, kept, policy)]
    if not rows:
        why = offline()
        said = f", and {why} forbids to fetch it" if why else ""
        raise NotHereError(
            f"{reference} is not on this machine{said}",
            mend="quantmint list  (what is here)" if why else "quantmint list; or name a place",
        )
    kept = rows[-1]
    offers = _offers(store, kept, policy)
    if reference.kind == "digest":
        offers = tuple(o for o in offers if any(f.sha256 == reference.name for f in o.files))
    try:
        warnings = judged(store, kept, root, strict=strict)
        refuse_withdrawn(kept, offers, policy)
    except IntegrityError as error:
        if not only_tell:
            raise
        warnings = (f"not to be used any more: {error.what}",)
    return Here(kept, offers, warnings)


def matching(store: Store, reference: Reference) -> list[Kept]:
    """Return what is kept of a reference's model, place or digest; the newest release last."""
    found = []
    for kept in all_kept(store):
        if reference.kind == "model":
            fits = kept.model == reference.name
        elif reference.kind == "digest":
            fits = any(blob.sha256 == reference.name for blob in kept.objects.values())
        else:
            fits = kept.place.casefold() == reference.place.casefold()
        if fits and reference.release in {None, kept.number} and _has_variant(kept, reference):
            found.append(kept)
    return sorted(found, key=lambda kept: (kept.number or 0, kept.pulled))


def judged(store: Store, kept: Kept, root: TrustRoot, *, strict: bool = False) -> tuple[str, ...]:
    """Verify a kept release again, with no network; return the warnings.

    Raises:
        IntegrityError: its signature is no longer believed.
    """
    envelope = kept.envelope(store)
    if envelope is None:
        if strict:
            raise IntegrityError(f"{kept.place} is not signed", mend="run again without --strict")
        return (f"{kept.place}: nobody vouches for it",)
    publisher = (kept.identity or "/").partition("/")[0]
    expect = Expect(kept.model, publisher or None, kept.number)
    return verify_release(envelope, root.policy(), expect=expect, strict=strict).warnings


def refuse_withdrawn(kept: Kept, offers: tuple[Offer, ...], policy: Policy) -> None:
    """Refuse a release, all of whose variants here were withdrawn.

    Raises:
        WithdrawnError: they were.
    """
    if offers and all(offer.withdrawn for offer in offers):
        known = policy.withdrawn_of(kept.identity or "")
        digests = [file.sha256 for offer in offers for file in offer.files if file.sha256]
        gone = {digest: known[digest] for digest in digests if digest in known}
        raise release_withdrawn(kept.identity or kept.model, kept.number, gone)


def _has_variant(kept: Kept, reference: Reference) -> bool:
    return reference.variant is None or reference.variant in kept.variants


def _offers(store: Store, kept: Kept, policy: Policy) -> tuple[Offer, ...]:
    manifest = kept.manifest(store)
    known = policy.withdrawn_of(kept.identity) if kept.identity else {}
    found = []
    for variant, paths in kept.variants.items():
        blobs = kept.files(variant)
        if all(store.has(blob) for blob in blobs):
            files = tuple(
                File(path, blob.size, blob.sha256) for path, blob in zip(paths, blobs, strict=True)
            )
            row = manifest.variant(variant) if manifest else None
            withdrawn = any(blob.sha256 in known for blob in blobs)
            found.append(Offer(variant, files, row, withdrawn))
    return tuple(found)
