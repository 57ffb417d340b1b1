"""What is here already: found by a reference without asking anybody, and judged again."""

from __future__ import annotations

from collections.abc import Sequence
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


class AmbiguousError(UserError):
    """A short name means more than one model that is here."""


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
    """Return what is kept of a reference's model, place or digest; the newest release last.

    A model's short name is that of what a trusted key vouches for, where there is such; of the
    rest, and of two publishers, it names one only where it can't mean another. `owner/name` is a
    repository, else a publisher's model.

    Raises:
        AmbiguousError: the short name means more than one; the message names them.
    """
    found = [kept for kept in _named(store, reference) if _fits(kept, reference)]
    if reference.kind == "model":
        found = _of_one_source(found, reference)
    return sorted(found, key=lambda kept: (kept.number or 0, kept.pulled))


def called(kept: Kept, rows: Sequence[Kept]) -> str:
    """Return by which name a person means one of all that is kept here."""
    twins = {each.source for each in rows if each.signer and each.model == kept.model}
    return kept.source if kept.signer and len(twins) > 1 else kept.title


def _named(store: Store, reference: Reference) -> list[Kept]:
    rows = all_kept(store)
    if reference.kind == "model":
        return [kept for kept in rows if kept.model == reference.name]
    if reference.kind == "digest":
        digest = reference.name
        return [k for k in rows if any(blob.sha256 == digest for blob in k.objects.values())]
    place, name = reference.place.casefold(), reference.name.casefold()
    found = [kept for kept in rows if kept.place.casefold() == place]
    if reference.kind != "hub" or found:
        return found
    return [kept for kept in rows if kept.signer and kept.source.casefold() == name]


def _fits(kept: Kept, reference: Reference) -> bool:
    has_variant = reference.variant is None or reference.variant in kept.variants
    return has_variant and reference.release in {None, kept.number}


def _of_one_source(rows: list[Kept], reference: Reference) -> list[Kept]:
    rows = [kept for kept in rows if kept.signer] or rows
    sources = sorted({kept.source for kept in rows})
    if len(sources) < 2:
        return rows
    names = [source.removeprefix("hub:") for source in sources]
    rest = str(reference).removeprefix(reference.name)
    raise AmbiguousError(
        f"{reference.name} is ambiguous here: it may be {', '.join(names)}",
        mend=f"write the one that you mean: {names[0]}{rest}",
    )


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
