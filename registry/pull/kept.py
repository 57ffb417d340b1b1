"""What was pulled: references in the store, one for each release of each place.

    refs/<model>/pulled.<16 hex>.json    objects: the release's files by path; body: see `Kept`

The name is made of the place and the release, so the same pull finds its own reference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from quantmint.errors import IntegrityError
from quantmint.registry.manifest.codec import from_bytes
from quantmint.registry.manifest.release import ENVELOPE_FILE, MANIFEST_FILE, Manifest
from quantmint.registry.manifest.types import time_text
from quantmint.registry.pull.places import check_name
from quantmint.registry.pull.reference import MADE_HERE, check_commit, check_place
from quantmint.registry.refs import NONE_YET, Ref, list_refs, put_ref, read_ref
from quantmint.registry.store import Blob, Store

KIND: Final = "pulled"
MADE: Final = "release"
_TRIES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A release that was pulled, or made here.

    `variants` maps a variant to the paths of its files; `place` is what `Place.name` says;
    `number` is the release's, or None without a manifest; `signer` the id of the trusted key.
    `apart`: `models/<model>/` is another publisher's, so this one has a folder of its own.
    """

    model: str
    place: str
    commit: str
    number: int | None = None
    identity: str | None = None
    signer: str | None = None
    pulled: str = ""
    apart: bool = False
    variants: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    objects: Mapping[str, Blob] = field(default_factory=dict)
    ref: Ref | None = None

    @property
    def name(self) -> str:
        """The name of its reference."""
        if self.ref is not None:
            return self.ref.release
        what = f"{self.place}\n{self.number or self.commit}"
        return f"{KIND}.{hashlib.sha256(what.encode()).hexdigest()[:16]}"

    @property
    def source(self) -> str:
        """Whose it is: `publisher/model` where a trusted key says so, else its place."""
        return self.identity if self.identity and self.signer else self.place

    @property
    def title(self) -> str:
        """What people call it: the model where a trusted key vouches for that name, else its
        place; `title:VARIANT` is a reference."""
        return self.model if self.signer else self.place.removeprefix("hub:")

    @property
    def is_pulled(self) -> bool:
        """Whether it was pulled; else it was made here."""
        return self.ref is None or self.ref.body.get("kind") == KIND

    @property
    def label(self) -> str:
        """What people call its release."""
        return str(self.number) if self.number is not None else self.commit[:12]

    @property
    def body(self) -> dict[str, Any]:
        """What the reference says beside its objects."""
        return {
            "kind": KIND, "place": self.place, "commit": self.commit, "number": self.number,
            "identity": self.identity, "signer": self.signer, "pulled": self.pulled,
            "variants": {name: list(paths) for name, paths in self.variants.items()},
            **({"apart": True} if self.apart else {}),
        }  # fmt: skip

    def files(self, variant: str) -> tuple[Blob, ...]:
        """Return the objects of a variant's files, in their order."""
        return tuple(self.objects[path] for path in self.variants.get(variant, ()))

    def manifest(self, store: Store) -> Manifest | None:
        """Return its manifest, if it has one.

        Raises:
            IntegrityError: the object is damaged or gone.
        """
        blob = self.objects.get(MANIFEST_FILE)
        return from_bytes(Manifest, store.read(blob), what=MANIFEST_FILE) if blob else None

    def envelope(self, store: Store) -> bytes | None:
        """Return its signed envelope, if it has one."""
        blob = self.objects.get(ENVELOPE_FILE)
        return store.read(blob) if blob else None


def keep(store: Store, kept: Kept) -> Kept:
    """Make the reference, or add to it: variants that were pulled before stay.

    Raises:
        UserError: others change it all the time. IntegrityError: an object is missing.
    """
    from quantmint.errors import UserError

    for turn in range(_TRIES):
        known = _known(store, kept)
        merged = _merged(known, kept)
        expected = known.ref.revision if known is not None and known.ref else NONE_YET
        try:
            ref = put_ref(
                store, kept.model, kept.name, merged.objects, body=merged.body, expected=expected
            )
        except UserError:  # another process was quicker
            if turn + 1 == _TRIES:
                raise
            continue
        return parse_kept(ref) or merged
    return kept


def all_kept(store: Store, model: str | None = None) -> list[Kept]:
    """Return everything that was pulled or released here, by model.

    Raises:
        IntegrityError: a reference is damaged.
    """
    return list(_all(store, model))


def settled(store: Store, kept: Kept) -> Kept:
    """Return a signed release with the folder that is its publisher's.

    Of several publishers of one model, each trusted, the first that came has `models/<model>/`;
    each other has a folder apart, also when the first is gone.
    """
    if kept.signer is None:
        return kept
    known = _known(store, kept)
    if known is not None:
        return replace(kept, apart=known.apart)
    rows = [each for each in all_kept(store, kept.model) if each.signer]
    own = [each for each in rows if each.source == kept.source]
    first = min((each for each in rows if not each.apart), key=lambda r: r.pulled, default=None)
    is_anothers = first is not None and first.source != kept.source
    return replace(kept, apart=is_anothers or any(each.apart for each in own))


def now_text() -> str:
    """Return the time as records write it."""
    return time_text(datetime.now(UTC))


def parse_kept(ref: Ref) -> Kept | None:
    """Return what a reference says, or None if it is of another kind.

    Raises:
        IntegrityError: it is of this kind and makes no sense.
    """
    body = ref.body
    try:
        if body.get("kind") == MADE:  # of one that was given up the books stay, and no model
            return None if body.get("given_up") else _made(ref)
        if body.get("kind") != KIND:
            return None
        number = body["number"]
        variants = {
            str(name): tuple(str(path) for path in paths)
            for name, paths in body["variants"].items()
        }
        if any(path not in ref.objects for paths in variants.values() for path in paths):
            raise ValueError("a variant without its file")
        if not all(check_name(path) for paths in variants.values() for path in paths):
            raise ValueError("the path of a file")
        return Kept(
            model=ref.model, place=check_place(body["place"]), commit=check_commit(body["commit"]),
            number=None if number is None else int(number),
            identity=body["identity"] and str(body["identity"]),
            signer=body["signer"] and str(body["signer"]),
            pulled=str(body["pulled"]), apart=body.get("apart") is True,
            variants=variants, objects=ref.objects, ref=ref,
        )  # fmt: skip
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(
            f"the reference {ref.model}/{ref.release} is damaged: {type(error).__name__}"
            f" {str(error)[:100]}",
            mend=f"remove store/refs/{ref.model}/{ref.release}.json of the home, and pull it again",
        ) from error


def _made(ref: Ref) -> Kept:
    """Return a release that was made here, as what is kept."""
    from quantmint import names

    variants = {}
    for path in ref.objects:
        stem, _, suffix = path.rpartition(".")
        label = stem.rpartition("-")[2]
        if suffix == "gguf" and "/" not in path and names.VARIANT.fullmatch(label):
            variants[label] = (path,)
    number = ref.release.rpartition(".")[2]
    return Kept(
        model=ref.model, place=MADE_HERE, commit="", signer="own key",
        number=int(number) if number.isdecimal() else None,
        identity=f"{ref.body.get('publisher')}/{ref.model}",
        variants=variants, objects=ref.objects, ref=ref,
    )  # fmt: skip


def _all(store: Store, model: str | None) -> Iterator[Kept]:
    for ref in list_refs(store, model):
        kept = parse_kept(ref)
        if kept is not None:
            yield kept


def _known(store: Store, kept: Kept) -> Kept | None:
    from quantmint.errors import UserError

    try:
        return parse_kept(read_ref(store, kept.model, kept.name))
    except UserError:
        return None


def _merged(known: Kept | None, kept: Kept) -> Kept:
    if known is None:
        return kept
    same = {path: blob for path, blob in known.objects.items() if path not in kept.objects}
    old = {
        name: paths
        for name, paths in known.variants.items()
        if name not in kept.variants and all(path in same for path in paths)
    }
    return Kept(
        model=kept.model, place=kept.place, commit=kept.commit, number=kept.number,
        identity=kept.identity, signer=kept.signer, pulled=kept.pulled, apart=known.apart,
        variants={**old, **kept.variants}, objects={**same, **kept.objects}, ref=known.ref,
    )  # fmt: skip
