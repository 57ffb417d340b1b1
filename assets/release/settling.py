"""Which release it is: an old one once more, or the next number with its history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from quantmint.assets.mint import Mint
from quantmint.assets.release.changes import Tables, changelog, same_content
from quantmint.assets.release.drafting import Draft, Number, lifetime, seal
from quantmint.assets.release.history import (
    KIND,
    Local,
    Served,
    amend,
    local_releases,
    ref_name,
    signers,
)
from quantmint.assets.release.inputs import Inputs
from quantmint.errors import IntegrityError
from quantmint.registry.manifest.codec import INDEX_LIMIT, MANIFEST_LIMIT, from_bytes
from quantmint.registry.manifest.release import (
    ENVELOPE_FILE,
    MANIFEST_FILE,
    Manifest,
    Variant,
    Yanked,
)
from quantmint.registry.manifest.types import moment_of
from quantmint.registry.publish.files import STATUS, STATUS_SIGNATURE
from quantmint.registry.publish.target import Target
from quantmint.registry.refs import ANY, put_ref, remove_ref
from quantmint.registry.signing.ed25519 import SigningKey
from quantmint.registry.store import Blob
from quantmint.registry.tensors import TensorTable, read_table
from quantmint.registry.trust_root import TrustRoot

GIVEN_UP: Final = "it was never published: its tests failed, or another took its place"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A release with all its files; `is_new` says that it was signed just now."""

    manifest: Manifest
    files: Mapping[str, Blob]
    is_new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What settling works with: the first of `keys` is the publisher's, further ones sign too.

    `folder` takes what is fetched, `now` dates a new release.
    """

    mint: Mint
    inputs: Inputs
    keys: tuple[SigningKey, ...]
    target: Target
    served: Served
    folder: Path
    now: datetime


def settle(desk: Desk, draft: Draft, *, keep: bool = True) -> Settled:
    """Return the release that this draft is: one that exists if it says the same, else the next.

    A new one is kept in the store before anything is sent, so that the same call after a kill
    goes on with the same bytes; unless `keep` is false.

    Raises:
        IntegrityError: a file of the release is gone from the store.
    """
    store, inputs = desk.mint.store, desk.inputs
    known = local_releases(store, inputs.recipe.model, inputs.terms.owner)
    number = Number(release=1, created=desk.now, expires=desk.now + lifetime(inputs))
    ours = draft.manifest(**number.fields)
    again = _again(desk, ours, known)
    if again is not None:
        return again
    published = [local for local in known if local.published or local.is_yanked]
    staged = [local for local in known if local.staged and local not in published]
    used = {local.manifest.release for local in (*published, *staged)} | desk.served.numbers
    given_up = [local for local in staged if _is_seen_here_alone(desk, local)]
    former = _former(desk, published)
    number = Number(
        release=max(used, default=0) + 1,
        created=desk.now,
        expires=desk.now + lifetime(inputs),
        changes=changelog(ours, former, _tables(desk, draft)),
        yanked=_yanked(desk, published, given_up),
    )
    files = seal(desk.mint, draft, number, desk.keys)
    manifest = read_manifest(desk, files[MANIFEST_FILE])
    if keep:
        _give_up(desk, given_up)
        forget_unpublished(desk)
        remember_local(desk, manifest, files, {})
    return Settled(manifest=manifest, files=files, is_new=True)


def forget_unpublished(desk: Desk) -> None:
    """Drop releases that came to nothing, and that nobody ever saw: the next try makes its own."""
    store, inputs = desk.mint.store, desk.inputs
    for local in local_releases(store, inputs.recipe.model, inputs.terms.owner):
        if not local.published and not local.is_yanked and not local.staged:
            remove_ref(store, inputs.recipe.model, local.ref.release)


def remember_staged(desk: Desk, manifest: Manifest) -> None:
    """Note that the target shows a release from now on, tested or not: its number is used up.

    Raises:
        UserError: another process changed what is known of the release.
    """
    store, name = desk.mint.store, desk.target.name
    for local in local_releases(store, manifest.model, manifest.publisher):
        known = {*local.published, *local.staged}
        if local.manifest.release == manifest.release and name not in known:
            amend(store, local, staged=[*local.staged, name])


def _is_seen_here_alone(desk: Desk, local: Local) -> bool:
    """Return whether a release was staged at this target alone, and is not served there."""
    return local.staged == (desk.target.name,) and (
        local.manifest.release not in desk.served.numbers
    )


def _give_up(desk: Desk, given_up: list[Local]) -> None:
    """Withdraw what was staged and never published; of its files only the signed ones stay."""
    for local in given_up:
        signed = {path: local.ref.objects[path] for path in (MANIFEST_FILE, ENVELOPE_FILE)}
        amend(desk.mint.store, local, signed, yanked=GIVEN_UP, given_up=True)


def remember_local(
    desk: Desk, manifest: Manifest, files: Mapping[str, Blob], published: Mapping[str, str]
) -> None:
    """Keep a release's files in the store, with the commit by each target that has it."""
    body = {
        "kind": KIND,
        "publisher": manifest.publisher,
        "release": manifest.release,
        "published": dict(published),
    }
    name = ref_name(manifest.publisher, manifest.release)
    put_ref(desk.mint.store, manifest.model, name, files, body=body, expected=ANY)


def read_manifest(desk: Desk, blob: Blob) -> Manifest:
    """Return a manifest that is in the store.

    Raises:
        IntegrityError: it is gone or damaged.
    """
    data = desk.mint.store.read(blob, limit=MANIFEST_LIMIT)
    return from_bytes(Manifest, data, what="the manifest")


def _again(desk: Desk, ours: Manifest, known: list[Local]) -> Settled | None:
    """Return the newest release there is, if it says the same and still holds for a while."""
    served, store = desk.served, desk.mint.store
    withdrawn = {row.release for row in served.yanked}
    newest = max(served.numbers, default=0)
    for local in _newest(known, newest):
        fit = not local.is_yanked and local.manifest.release not in withdrawn
        if fit and _holds(desk, local.manifest) and same_content(ours, local.manifest):
            files = dict(local.ref.objects)
            whole = all(store.has(blob) for blob in files.values())
            if whole and _is_signed(desk, store.read(files[ENVELOPE_FILE])):
                return Settled(manifest=local.manifest, files=files, is_new=False)
    theirs = served.newest
    if theirs is None or theirs.release < newest or not served.on_main:
        return None
    if not _holds(desk, theirs) or not same_content(ours, theirs):
        return None
    files = _adopted(desk)
    if not _is_signed(desk, store.read(files[ENVELOPE_FILE])):
        return None
    return Settled(manifest=theirs, files=files, is_new=False)


def _is_signed(desk: Desk, envelope: bytes) -> bool:
    """Return whether a key that holds signed a release, and every key that is to sign it too."""
    found = signers(envelope)
    revoked = set(TrustRoot(desk.mint.home.keys).policy().revoked)
    return not found <= revoked and {key.public.id for key in desk.keys[1:]} <= found


def _newest(known: list[Local], at_least: int) -> Iterator[Local]:
    """Yield the newest release that was published, before it those that came to nothing."""
    for local in reversed(known):
        if local.manifest.release >= at_least:
            yield local
        if local.published or (local.is_yanked and not local.is_given_up):
            return


def _holds(desk: Desk, manifest: Manifest) -> bool:
    """Return whether at least a quarter of a release's life is left; else it is signed anew."""
    begun, ends = moment_of(manifest.created), moment_of(manifest.expires)
    return desk.now < ends - (ends - begun) / 4


def _adopted(desk: Desk) -> dict[str, Blob]:
    """Return the files that main carries, out of the store where they are there."""
    head = desk.served.head
    assert head is not None
    found: dict[str, Blob] = {}
    for path, entry in head.files.items():
        if path in {STATUS, STATUS_SIGNATURE}:
            continue
        blob = Blob(entry.sha256 or "0" * 64, entry.size)
        if entry.sha256 is None or not desk.mint.store.has(blob):
            local = desk.target.fetch(head.commit, path, blob, desk.folder)
            blob = desk.mint.store.put(local)
        found[path] = blob
    return found


def _former(desk: Desk, published: list[Local]) -> Manifest | None:
    """Return the newest release before this one, made here or elsewhere."""
    found = [local.manifest for local in published if not local.is_given_up]
    found += [desk.served.newest] if desk.served.newest is not None else []
    return max(found, key=lambda manifest: manifest.release, default=None)


def _yanked(desk: Desk, published: list[Local], given_up: list[Local]) -> tuple[Yanked, ...]:
    """Return every release that was withdrawn so far; each release repeats the whole list."""
    reasons = {local.manifest.release: GIVEN_UP for local in given_up}
    rows = {row.release: row for row in desk.served.yanked}
    for local in (*published, *given_up):
        rows |= {row.release: row for row in local.manifest.yanked if row.release not in rows}
        number = local.manifest.release
        reason = local.ref.body.get("yanked") or reasons.get(number)
        if reason:
            sha256 = local.ref.objects[MANIFEST_FILE].sha256
            rows[number] = Yanked(release=number, manifest_sha256=sha256, reason=str(reason))
    return tuple(rows[number] for number in sorted(rows))


def _tables(desk: Desk, draft: Draft) -> Tables:
    """Return what reads a variant's table of tensors: of this draft, or of a former release."""
    store = desk.mint.store

    def read(variant: Variant) -> TensorTable | None:
        path, entry = variant.tensors.path, variant.tensors
        blob = draft.files.get(path)
        if blob is None or blob.sha256 != entry.sha256:
            blob = Blob(entry.sha256, entry.size)
        if not store.has(blob):
            head = desk.served.head
            if head is None or path not in head.files or entry.size > INDEX_LIMIT:
                return None
            fetched = store.put(desk.target.fetch(head.commit, path, blob, desk.folder))
            if fetched != blob:
                raise IntegrityError(f"{path} of {desk.target.name} is not the manifest's")
        return read_table(store.read(blob), what=path)

    return read
