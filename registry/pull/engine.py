"""Pulling: reference -> place -> what is believed -> choice -> bytes -> reference and link."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from quantmint.errors import UserError
from quantmint.home import Home
from quantmint.registry.hf_cache import put_into_cache
from quantmint.registry.machine import Machine, this_machine
from quantmint.registry.pull import local
from quantmint.registry.pull.believe import Asked, Believed, believe, model_of
from quantmint.registry.pull.choose import AUTO, Choice, NoVariantError, Wishes, choose
from quantmint.registry.pull.find import find_digest, find_place, listing_of
from quantmint.registry.pull.getting import Getting, Got, get
from quantmint.registry.pull.header import Shape, read_header, shape_of
from quantmint.registry.pull.hub import HubPlace, offline
from quantmint.registry.pull.kept import Kept, all_kept, keep, now_text, settled
from quantmint.registry.pull.offers import Offer, offers_of
from quantmint.registry.pull.places import Place
from quantmint.registry.pull.placing import (
    Spot,
    lm_studio_spot,
    own_spot,
    put_files,
    put_for_ollama,
    refuse_others,
)
from quantmint.registry.pull.reference import Reference
from quantmint.registry.pull.ways import Ways
from quantmint.registry.store import Store
from quantmint.registry.transfer import Limits
from quantmint.registry.transfer.model import Report
from quantmint.registry.trust_root import TrustRoot


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be pulled, how it is chosen, and where it goes beside `models/`."""

    reference: Reference
    wishes: Wishes = field(default_factory=Wishes)
    registry: str | None = None
    strict: bool = False
    to: Path | None = None
    lm_studio: bool = False
    ollama: bool = False
    hub_cache: bool = False
    mirrors: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)

    @property
    def ways(self) -> Ways:
        """How hubs are asked.

        Raises:
            UserError: a mirror is none.
        """
        return Ways.of(self.mirrors, self.limits.rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What a request leads to before a byte of a model is fetched.

    `place` is None where everything is here already: a digest, or no network.
    """

    model: str
    choice: Choice
    machine: Machine
    place: Place | None = None
    believed: Believed | None = None
    kept: Kept | None = None
    shape: Shape | None = None
    warnings: tuple[str, ...] = ()

    @property
    def offer(self) -> Offer:
        """What is taken."""
        return self.choice.taken.offer


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """Where the model lies now, and by which name it is meant.

    `got` is None where nothing had to be asked for.
    """

    path: Path
    kept: Kept
    resolved: Resolved
    name: str
    got: Got | None = None
    also: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Puller:
    """A home to pull to. `report` gets lines for people, `progress` is the transfer's."""

    home: Home
    report: Callable[[str], None] = lambda _: None
    progress: Report | None = None
    machine: Machine | None = None
    _store: list[Store] = field(default_factory=list, repr=False)

    @property
    def store(self) -> Store:
        """The home's store, opened."""
        if not self._store:
            self._store.append(Store(self.home.store).open())
        return self._store[0]

    @property
    def root(self) -> TrustRoot:
        """Whom the home trusts."""
        return TrustRoot(self.home.keys)

    def resolve(self, request: Request) -> Resolved:
        """Find, judge and choose; nothing of a model is fetched.

        Raises:
            UserError, RegistryError, IntegrityError: see docs/pull.md.
        """
        reference = request.reference
        wishes = _wishes(request)
        machine = self.machine or this_machine()
        digest = reference.name if reference.kind == "digest" else None
        place = self._find(request)
        if place is None:
            return self.resolve_here(request)
        listing = listing_of(place, reference)
        asked = Asked(
            reference.name if reference.kind == "model" else None,
            reference.release,
            request.strict,
            is_pinned=reference.release is not None or reference.revision not in {None, "main"},
        )
        known = self._known(place)
        believed = believe(place, listing, asked, self.root, known)
        offers = offers_of(believed)
        if digest is not None:
            offers = tuple(o for o in offers if any(f.sha256 == digest for f in o.files))
        shape = None
        if believed.manifest is None:
            shape = _shape(place, believed, offers, wishes)
        choice = _chosen(believed, offers, machine, wishes, shape)
        skipped = listing.skipped
        odd = (f"{skipped} of its GGUF files were left out: odd names",) if skipped else ()
        return Resolved(
            model=believed.manifest.model if believed.manifest else model_of(place),
            choice=choice, machine=machine, place=place, believed=believed, shape=shape,
            warnings=(*believed.warnings, *_by_mirror(place, believed), *odd, *choice.notes),
        )  # fmt: skip

    def pull(self, request: Request, resolved: Resolved | None = None) -> Pulled:
        """Bring the model here, and place it; what is here already is only placed.

        Raises:
            UserError, RegistryError, IntegrityError: see docs/pull.md; nothing half-made stays.
        """
        resolved = resolved or self.resolve(request)
        if resolved.place is None:
            assert resolved.kept is not None
            return self._place(request, resolved, resolved.kept, None)
        assert resolved.believed is not None
        how = Getting(
            store=self.store, limits=request.limits, progress=self.progress,
            mirrors=request.ways.origins(),
        )  # fmt: skip
        got = get(resolved.place, resolved.believed, resolved.offer, how)
        fresh = self._kept(resolved, got)
        # Looked at while the reference still says what came before.
        refuse_others(self.store, fresh, resolved.offer.variant, own_spot(self.home, fresh))
        kept = keep(self.store, fresh)
        return self._place(request, resolved, kept, got)

    def resolve_here(self, request: Request) -> Resolved:
        """Choose among what is on this machine; nobody is asked.

        Raises:
            UserError: it is not here. IntegrityError: it may no longer be used.
        """
        wishes, machine = _wishes(request), self.machine or this_machine()
        found = local.find(self.store, request.reference, self.root, strict=request.strict)
        choice = choose(found.offers, machine, wishes)
        return Resolved(
            model=found.kept.model, choice=choice, machine=machine, kept=found.kept,
            warnings=(*found.warnings, *choice.notes),
        )  # fmt: skip

    def _find(self, request: Request) -> Place | None:
        """Return the place to ask; None where what is here is to do."""
        reference, ways = request.reference, request.ways
        if reference.kind == "digest":
            here = self._has(reference)
            place = None if here else find_digest(reference, request.registry, ways)
        elif reference.kind == "file" or not offline():
            place = find_place(reference, request.registry, ways)
        else:
            return None
        if place is not None and not isinstance(place, HubPlace):
            ways.refuse_for(place.name)
        return place

    def _has(self, reference: Reference) -> bool:
        return self.home.store.is_dir() and bool(local.matching(self.store, reference))

    def _known(self, place: Place) -> tuple[str, ...]:
        """Return the identities of signed releases that came from this place before."""
        if not self.home.store.is_dir():
            return ()
        rows = [kept for kept in all_kept(self.store) if kept.place == place.name]
        return tuple(dict.fromkeys(kept.identity for kept in rows if kept.identity and kept.signer))

    def _kept(self, resolved: Resolved, got: Got) -> Kept:
        place, believed, offer = resolved.place, resolved.believed, resolved.offer
        assert place is not None
        assert believed is not None
        manifest, verified = believed.manifest, believed.verified
        fresh = Kept(
            model=resolved.model,
            place=place.name,
            commit=believed.listing.commit,
            number=manifest.release if manifest else None,
            identity=manifest.identity if manifest else None,
            signer=verified.signer if verified else None,
            pulled=now_text(),
            variants={offer.variant: tuple(file.path for file in offer.files)},
            objects=got.objects,
        )
        return settled(self.store, fresh)

    def _place(self, request: Request, resolved: Resolved, kept: Kept, got: Got | None) -> Pulled:
        variant = resolved.offer.variant
        spot = own_spot(self.home, kept)
        if got is not None:
            spot = replace(spot, replaces="all")
        path = put_files(self.store, kept, variant, spot)
        also = []
        if request.lm_studio:
            also.append(put_files(self.store, kept, variant, lm_studio_spot(kept)))
        if request.ollama:
            also.append(put_for_ollama(self.store, kept, variant))
        if request.hub_cache:
            also += self._into_cache(request, kept, variant)
        if request.to is not None:
            spot = Spot(request.to.expanduser().absolute())
            path = put_files(self.store, kept, variant, spot)
        name = local.called(kept, all_kept(self.store, kept.model))
        return Pulled(path=path, kept=kept, resolved=resolved, name=name, got=got, also=tuple(also))

    def _into_cache(self, request: Request, kept: Kept, variant: str) -> list[Path]:
        if not kept.place.startswith("hub:") or not kept.commit:
            raise UserError(
                "only what came from a hub has a place in the Hub's cache",
                mend="leave out --hub-cache",
            )
        reference = request.reference
        is_main = reference.release is None and reference.revision in {None, "main"}
        repo = kept.place.removeprefix("hub:")
        return [
            put_into_cache(self.store, kept.objects[path], repo, kept.commit, path, is_main=is_main)
            for path in kept.variants[variant]
        ]


def _wishes(request: Request) -> Wishes:
    """Return the wishes, with the variant of the reference where it names one.

    Raises:
        UserError: two different variants are named.
    """
    wishes, named = request.wishes, request.reference.variant
    if named is None:
        return wishes
    if wishes.variant not in {AUTO, named}:
        raise UserError(
            f"the reference names {named}, and --variant {wishes.variant}",
            mend="name one of the two",
        )
    return replace(wishes, variant=named)


def _chosen(
    believed: Believed,
    offers: Sequence[Offer],
    machine: Machine,
    wishes: Wishes,
    shape: Shape | None,
) -> Choice:
    """Choose as `choose` does, and say it where the variant that is lacking was withheld."""
    try:
        return choose(offers, machine, wishes, shape)
    except NoVariantError as error:
        rows = believed.manifest.withheld if believed.manifest else ()
        held = next((row for row in rows if row.variant == wishes.variant), None)
        if held is not None:
            error.what = f"the variant {held.variant} was withheld by its publisher: {held.reason}"
        raise


def _shape(
    place: Place, believed: Believed, offers: Sequence[Offer], wishes: Wishes
) -> Shape | None:
    """Read one header where it lies: all variants of a model have the same layers and heads."""
    named = [offer for offer in offers if offer.variant == wishes.variant]
    smallest = min(named or offers, key=lambda offer: offer.size)
    header = read_header(place, believed.listing, smallest.files[0])
    return shape_of(header) if header is not None else None


def _by_mirror(place: Place, believed: Believed) -> tuple[str, ...]:
    """Return a warning where a mirror said what the place holds, and nobody signed that."""
    mirror, verified = believed.listing.mirror, believed.verified
    if mirror is None or (verified is not None and verified.signer is not None):
        return ()
    told = f"{place.name} can't be reached: its files and their digests are what the mirror"
    return (f"{told} {mirror} lists, and nobody signed that",)
