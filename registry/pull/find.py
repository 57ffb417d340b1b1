"""From a reference to a place, and to what it lists at the revision that was asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from quantmint.errors import IntegrityError, UserError
from quantmint.registry.manifest.codec import MANIFEST_LIMIT
from quantmint.registry.manifest.release import ENVELOPE_FILE, MANIFEST_FILE, PAYLOAD_TYPE
from quantmint.registry.pull.believe import model_of, names_in
from quantmint.registry.pull.folder import MAIN, PlainPlace, folder_place
from quantmint.registry.pull.hub import hub_place, offline, require_online, search
from quantmint.registry.pull.places import Listing, Place
from quantmint.registry.pull.reference import Reference, parse_reference
from quantmint.registry.pull.ways import Ways
from quantmint.registry.signing.envelope import ENVELOPE_LIMIT, open_envelope

REGISTRY: Final = "QUANTMINT_REGISTRY"
_MOST_FOLDERS: Final = 1000


def find_place(
    reference: Reference, registry: str | None = None, ways: Ways | None = None
) -> Place:
    """Return the place that a reference leads to.

    A model's name is looked up in `registry`, else in `QUANTMINT_REGISTRY`: one or more of
    `hub:OWNER`, `hub:OWNER/NAME` and `file:DIR`, the first that has it: what a place's manifest
    says of its model counts, not its name. `ways` says how hubs are asked. Nothing is believed of
    it yet.

    Raises:
        UserError: there is no such place, or no registry is named.
        RegistryError: it can't be reached.
    """
    if reference.kind == "hub":
        require_online(str(reference))
        return hub_place(reference.name, ways)
    if reference.kind == "import":
        raise UserError(
            f"{reference} is not here, or came in an archive: there is no place to ask",
            mend="quantmint list; or import the archive",
        )
    if reference.kind == "file":
        return folder_place(Path(reference.name))
    named = registries(registry)
    refused = None  # it has the model's name, and says that it holds another: that is an error
    for each in named:
        places = list(_having(each, reference.name, ways))
        for place in places:
            is_namesake = model_of(place) == reference.name
            if (is_namesake and len(named) == len(places) == 1) or _holds(place, reference.name):
                return place
            refused = refused or (place if is_namesake else None)
    if refused is not None:
        return refused
    if not named:
        raise UserError(
            f"no registry is named in which {reference.name} could be looked up",
            mend=f"export {REGISTRY}=hub:OWNER  (or file:DIR), or write owner/name",
        )
    raise UserError(
        f"there is no model {reference.name} in {', '.join(named)}",
        mend="check the name; an owner's repositories are named MODEL-GGUF",
    )


def find_digest(
    reference: Reference, registry: str | None = None, ways: Ways | None = None
) -> Place | None:
    """Return the place among the registries whose newest release lists a file of that digest.

    An owner's whole list of repositories is not gone through: `hub:OWNER` is left out.

    Raises:
        RegistryError, UserError: a registry can't be read.
    """
    for each in registries(registry):
        for place in _all_of(each, ways):
            rows = place.listing(None).files.values()
            if any(file.sha256 == reference.name for file in rows):
                return place
    return None


def registries(registry: str | None) -> list[str]:
    """Return the registries that are named."""
    return (registry or os.environ.get(REGISTRY, "")).split()


def listing_of(place: Place, reference: Reference) -> Listing:
    """Return what a place lists at the revision that was asked for.

    Raises:
        UserError: it has no such revision. RegistryError: it can't be reached.
    """
    if reference.release is not None:
        return place.listing(None if isinstance(place, PlainPlace) else f"v{reference.release}")
    return place.listing(reference.revision)


def _having(registry: str, model: str, ways: Ways | None) -> Iterator[Place]:
    """Yield the places of one registry that may have the model: named after it, or by a person."""
    if registry.startswith("file:"):
        root = Path(registry.removeprefix("file:")).expanduser().absolute()
        if any((root / name).exists() for name in (MAIN, ENVELOPE_FILE, MANIFEST_FILE)):
            yield folder_place(root)
            return
        wanted = {model, f"{model}-gguf"}
        for folder in _folders(root):
            if folder.name.lower() in wanted:
                yield folder_place(folder)
        return
    word = registry.removeprefix("hub:")
    require_online(model)
    if "/" in word:
        yield hub_place(parse_reference(f"hub:{word}").name, ways)
        return
    parse_reference(f"hub:{word}/x")  # the owner's name follows the grammar
    for repo in search(word, model, ways):
        yield hub_place(repo, ways)


def _holds(place: Place, model: str) -> bool:
    """Return whether a place says that it holds a model; one that says nothing, by its name."""
    listing = place.listing(None)
    is_sealed = ENVELOPE_FILE in listing.files
    if not is_sealed and MANIFEST_FILE not in listing.files:
        return model_of(place) == model
    name, limit = (ENVELOPE_FILE, ENVELOPE_LIMIT) if is_sealed else (MANIFEST_FILE, MANIFEST_LIMIT)
    data = place.read(listing, name, limit)
    try:
        plain = open_envelope(data, PAYLOAD_TYPE).payload if is_sealed else data
        return names_in(plain)[1] == model
    except (IntegrityError, UserError):
        return True  # who judges it says what is wrong with it


def _all_of(registry: str, ways: Ways | None) -> Iterator[Place]:
    if not registry.startswith("file:"):
        if "/" in registry and not offline():
            name = parse_reference(f"hub:{registry.removeprefix('hub:')}").name
            yield hub_place(name, ways)
        return
    root = Path(registry.removeprefix("file:")).expanduser().absolute()
    for folder in [root, *_folders(root)]:
        if (folder / MAIN).exists():
            yield folder_place(folder)


def _folders(root: Path) -> list[Path]:
    try:
        found = [path for path in root.iterdir() if path.is_dir() and path.name[:1] != "."]
    except OSError as error:
        raise UserError(
            f"the registry file:{root} can't be read: {error.strerror}",
            mend=f"check {REGISTRY}",
        ) from None
    return sorted(found)[:_MOST_FOLDERS]
