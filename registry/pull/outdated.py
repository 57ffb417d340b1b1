"""What a newer release changed, and whether it matters to who has an older one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from quantmint.errors import QuantmintError
from quantmint.registry.manifest.codec import INDEX_LIMIT
from quantmint.registry.manifest.release import MANIFEST_FILE, Manifest, Variant
from quantmint.registry.pull.believe import Asked, Believed, believe
from quantmint.registry.pull.find import find_place
from quantmint.registry.pull.kept import Kept
from quantmint.registry.pull.places import Place
from quantmint.registry.pull.reference import parse_reference
from quantmint.registry.pull.withdrawn import WithdrawnError
from quantmint.registry.store import Store
from quantmint.registry.tensors import TensorTable, read_table
from quantmint.registry.trust_root import TrustRoot

Change = Literal["nothing", "weights", "template", "metadata", "measurements", "withdrawn", "gone",
                 "bytes", "unknown"]  # fmt: skip
# What each change means for who has the older file.
MEANS: dict[str, str] = {
    "nothing": "up to date",
    "weights": "other weights: pull it again",
    "template": "another chat template: pull it again (only the header is fetched)",
    "metadata": "other facts in the header: answers stay the same",
    "measurements": "the same bytes: only what is known of them is new",
    "withdrawn": "WITHDRAWN by its publisher: do not use it any more",
    "gone": "no longer released: it may be used on, and gets no updates",
    "bytes": "other bytes; without a manifest nobody says what changed",
    "unknown": "can't be told",
}
MATTERS = frozenset({"weights", "template", "withdrawn", "bytes"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One variant that is here, against the newest release. `fetch` is in bytes, if known."""

    kept: Kept
    variant: str
    change: Change
    newest: str = ""
    fetch: int | None = None
    why: str = ""

    @property
    def matters(self) -> bool:
        """Whether it should be pulled again, or no longer be used."""
        return self.change in MATTERS

    @property
    def means(self) -> str:
        """What the change means, in words."""
        return self.why or MEANS[self.change]


def standing(store: Store, kept: Kept, root: TrustRoot) -> list[Standing]:
    """Compare what is here of one release with what its place offers now.

    A place that can't be asked, or is refused, is no error: each variant is then `unknown`, and
    says why; or `withdrawn`, where that is why.
    """
    try:
        place = find_place(parse_reference(kept.place))
        listing = place.listing(None)
        known = [kept.identity] if kept.identity and kept.signer else []
        model = kept.model if kept.identity else None
        believed = believe(place, listing, Asked(model, identity=kept.identity), root, known)
        return [_compared(store, kept, variant, place, believed) for variant in kept.variants]
    except QuantmintError as error:
        gone = _withdrawn_here(kept, root, error)
        return [
            Standing(kept=kept, variant=variant, change="withdrawn", why=gone[variant])
            if variant in gone
            else Standing(kept=kept, variant=variant, change="unknown", why=error.what)
            for variant in kept.variants
        ]


def _withdrawn_here(kept: Kept, root: TrustRoot, error: QuantmintError) -> dict[str, str]:
    """Return the variants that were withdrawn, as an error says it or as it was seen before."""
    digests = dict(root.policy().withdrawn_of(kept.identity)) if kept.identity else {}
    if isinstance(error, WithdrawnError):
        digests |= error.digests
    return {
        variant: f"{MEANS['withdrawn']} ({digests[blob.sha256]})"
        for variant in kept.variants
        for blob in kept.files(variant)
        if blob.sha256 in digests
    }


def newest_of(rows: Sequence[Kept]) -> list[Kept]:
    """Return of each place, model and variant the newest release that was pulled.

    A release has those of its variants alone that are not here in a newer one.
    """
    found: dict[tuple[str, str, str], Kept] = {}
    for kept in sorted(rows, key=lambda each: (each.number or 0, each.pulled)):
        if kept.is_pulled:
            found |= {(kept.place, kept.model, variant): kept for variant in kept.variants}
    newest: dict[tuple[str, str], Kept] = {}
    for (_, _, variant), kept in found.items():
        row = newest.setdefault((kept.model, kept.name), replace(kept, variants={}))
        variants = {**row.variants, variant: kept.variants[variant]}
        newest[kept.model, kept.name] = replace(row, variants=variants)
    return list(newest.values())


def _compared(store: Store, kept: Kept, variant: str, place: Place, believed: Believed) -> Standing:
    new = believed.manifest
    if new is None:
        return _by_listing(kept, variant, believed)
    label = str(new.release)
    old = kept.manifest(store)
    manifest_sha = kept.objects[MANIFEST_FILE].sha256 if old else ""
    digests = [blob.sha256 for blob in kept.files(variant)]
    said = [row.reason for row in new.yanked if row.manifest_sha256 == manifest_sha]
    said += [believed.withdrawn[digest] for digest in digests if digest in believed.withdrawn]
    if said:
        why = f"{MEANS['withdrawn']} ({said[0][:300]})"
        return Standing(kept=kept, variant=variant, change="withdrawn", newest=label, why=why)
    row = new.variant(variant)
    if row is None:
        return Standing(kept=kept, variant=variant, change="gone", newest=label)
    mine = old.variant(variant) if old else None
    (blob,) = kept.files(variant)[:1]
    if blob.sha256 == row.file.sha256:
        same = mine is None or _measured(mine) == _measured(row)
        change: Change = "nothing" if same else "measurements"
        return Standing(kept=kept, variant=variant, change=change, newest=label, fetch=0)
    change, fetch = _by_tables(store, kept, place, believed, (old, mine, row))
    return Standing(kept=kept, variant=variant, change=change, newest=label, fetch=fetch)


def _by_listing(kept: Kept, variant: str, believed: Believed) -> Standing:
    files = believed.listing.files
    for path in kept.variants[variant]:
        listed = files.get(path)
        if listed is None:
            return Standing(kept=kept, variant=variant, change="gone")
        if listed.sha256 is None and listed.size == kept.objects[path].size:
            return Standing(kept=kept, variant=variant, change="unknown")
        if listed.sha256 != kept.objects[path].sha256:
            size = sum(files[p].size for p in kept.variants[variant] if p in files)
            return Standing(kept=kept, variant=variant, change="bytes", fetch=size,
                            newest=believed.listing.commit[:12])  # fmt: skip
    return Standing(kept=kept, variant=variant, change="nothing", fetch=0)


def _by_tables(
    store: Store,
    kept: Kept,
    place: Place,
    believed: Believed,
    rows: tuple[Manifest | None, Variant | None, Variant],
) -> tuple[Change, int]:
    """Return what changed by the tables of tensors, and the bytes that a pull would fetch."""
    old, mine, row = rows
    before = _table_here(store, kept, mine)
    data = place.read(believed.listing, row.tensors.path, INDEX_LIMIT)
    if before is None or hashlib.sha256(data).hexdigest() != row.tensors.sha256:
        return "weights", row.file.size
    after = read_table(data, what=row.tensors.path)
    there = {tensor.sha256 for tensor in before.tensors}
    lacking = sum(tensor.size for tensor in after.tensors if tensor.sha256 not in there)
    if lacking or {t.name for t in after.tensors} != {t.name for t in before.tensors}:
        return "weights", lacking + after.header_size
    new = believed.manifest
    assert new is not None
    template = old is None or old.chat_template_sha256 != new.chat_template_sha256
    return ("template" if template else "metadata"), after.header_size


def _table_here(store: Store, kept: Kept, mine: Variant | None) -> TensorTable | None:
    blob = kept.objects.get(mine.tensors.path) if mine else None
    return read_table(store.read(blob), what="a table of tensors") if blob else None


def _measured(row: Variant) -> object:
    return row.model_dump(exclude={"file", "tensors"})
