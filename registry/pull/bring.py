"""Importing an archive: the signed manifest first, then only the files that it vouches for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from quantmint.errors import IntegrityError, UserError
from quantmint.home import Home
from quantmint.registry import gguf
from quantmint.registry.manifest.release import (
    ENVELOPE_FILE,
    MANIFEST_FILE,
    PAYLOAD_TYPE,
    UNLISTED,
    Manifest,
)
from quantmint.registry.pull import archive
from quantmint.registry.pull.believe import home_of
from quantmint.registry.pull.kept import Kept, all_kept, keep, settled
from quantmint.registry.pull.placing import own_spot, put_files, refuse_others
from quantmint.registry.pull.reference import imported_place
from quantmint.registry.pull.withdrawn import release_withdrawn
from quantmint.registry.signing.envelope import open_envelope
from quantmint.registry.signing.release import Expect, accept_release, unsigned_release
from quantmint.registry.store import Blob, Store
from quantmint.registry.trust_root import TrustRoot


@dataclass(frozen=True, slots=True)
class Imported:
    """What came: the reference, where each variant lies, and warnings."""

    kept: Kept
    paths: tuple[Path, ...]
    warnings: tuple[str, ...]


def bring(home: Home, path: Path, *, strict: bool = False, release: int | None = None) -> Imported:
    """Import an archive; no network is used. `release` names an older release on purpose.

    Raises:
        UserError: there is no such file, the disk is full, or nobody vouches for it and another
            such one was imported before.
        IntegrityError: it is damaged, altered, or not signed as the trust policy asks.
    """
    store, root = Store(home.store).open(), TrustRoot(home.keys)
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}", mend="check the name") from None
    came: list[Blob] = []
    with file:
        kept = archive.read_index(file)
        had = {blob for blob in kept.objects.values() if store.has(blob)}
        first = {blob.sha256 for blob in archive.small_first(kept)}
        try:
            came += archive.read_objects(file, store, kept, first)
            expect = Expect(kept.model, None, release)
            kept, warnings = _judged(store, kept, root, expect, strict=strict)
            _refuse_twins(home, store, kept)
            rest = {blob.sha256 for blob in kept.objects.values()} - first
            came += archive.read_objects(file, store, kept, rest)
            archive.read_end(file)
            for paths in kept.variants.values():
                for each in paths:
                    gguf.read(store.path(kept.objects[each].sha256))
        except BaseException:
            for blob in came:  # what was refused must not be found by its name
                if blob not in had:
                    store.remove(blob)
            raise
    kept = keep(store, settled(store, kept))
    spot = own_spot(home, kept)
    if kept.signer is None:
        warnings = (*warnings, f"it is called {kept.title} here, and replaces nothing")
    paths_ = tuple(put_files(store, kept, variant, spot) for variant in kept.variants)
    return Imported(kept, paths_, warnings)


def _judged(
    store: Store, kept: Kept, root: TrustRoot, expect: Expect, *, strict: bool
) -> tuple[Kept, tuple[str, ...]]:
    envelope, plain = kept.objects.get(ENVELOPE_FILE), kept.objects.get(MANIFEST_FILE)
    if plain is None and envelope is None:
        policy = root.policy()
        if strict or policy.must_be_signed(kept.model, None):
            raise IntegrityError(
                f"the archive of {kept.model} holds no signed manifest, and one is asked for",
                mend="export it again from a signed release",
            )
        said = f"{kept.place}: nobody vouches for it; its bytes are those that were exported"
        return _apart(replace(kept, identity=None, number=None, signer=None)), (said,)
    if envelope is not None:
        data = store.read(envelope)
        verified = accept_release(root, data, expect=expect, strict=strict)
        payload = open_envelope(data, PAYLOAD_TYPE).payload
        if plain is None or store.read(plain) != payload:
            raise IntegrityError("the archive's manifest is not the one that was signed")
    else:
        assert plain is not None
        verified = unsigned_release(store.read(plain), root.policy(), expect=expect, strict=strict)
    manifest = verified.manifest
    _check_listed(manifest, kept)
    gone = root.policy().withdrawn_of(manifest.identity)
    digests = [blob.sha256 for variant in kept.variants for blob in kept.files(variant)]
    if digests and all(digest in gone for digest in digests):
        known = {digest: gone[digest] for digest in digests}
        raise release_withdrawn(manifest.identity, manifest.release, known)
    found = replace(
        kept, number=manifest.release, identity=manifest.identity, signer=verified.signer
    )
    _check_place(manifest, kept)
    return _apart(found), verified.warnings


def _apart(kept: Kept) -> Kept:
    """Return an import under a place of its own, if nobody vouches for where it says it is from."""
    if kept.signer is not None:
        return kept
    return replace(kept, place=imported_place(kept.place, kept.model))


def _check_place(manifest: Manifest, kept: Kept) -> None:
    """Refuse an archive that names another repository than its manifest's own."""
    kind, _, own = kept.place.partition(":")
    home = home_of(manifest, own)
    if kind == "hub" and own.casefold() != home.casefold():
        raise IntegrityError(f"the archive says that it is of {own}, and its manifest of {home}")


def _refuse_twins(home: Home, store: Store, kept: Kept) -> None:
    """Refuse what would replace another import, while nobody vouches for either."""
    if kept.signer is not None:
        return
    for other in all_kept(store):
        same = other.place == kept.place and other.signer is None
        if same and any(other.objects.get(p, b) != b for p, b in kept.objects.items()):
            raise UserError(
                f"another archive that says it is {kept.title} was imported, and nobody vouches"
                " for either",
                mend=f"quantmint rm {kept.title}, then import this one",
            )
    for variant in kept.variants:
        refuse_others(store, kept, variant, own_spot(home, kept))


def _check_listed(manifest: Manifest, kept: Kept) -> None:
    """Refuse a file that the manifest does not list with these bytes, or under another variant."""
    listed = {entry.path: Blob(entry.sha256, entry.size) for entry in manifest.entries}
    for path, blob in kept.objects.items():
        if path not in UNLISTED and listed.get(path) != blob:
            raise IntegrityError(f"the archive's file {path} is not one of its manifest's")
    for variant, paths in kept.variants.items():
        row = manifest.variant(variant)
        if row is None or paths != (row.file.path,):
            raise IntegrityError(f"the archive's variant {variant} is not its manifest's")
