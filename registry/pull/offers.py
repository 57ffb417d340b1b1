"""What a place offers: its models, by variant, out of the manifest or by their names alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from quantmint import names
from quantmint.errors import IntegrityError, RegistryError
from quantmint.registry.linter.labels import hub_label
from quantmint.registry.manifest.release import Manifest, Variant
from quantmint.registry.pull.believe import Believed
from quantmint.registry.pull.places import File, Listing

_PART: Final = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf")
_NO_MODEL: Final = ("mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")
_MOST_PARTS: Final = 256
WIDE: Final = frozenset({"F16", "BF16", "F32"})


@dataclass(frozen=True, slots=True)
class Offer:
    """One model that can be pulled: one file, or the parts of one in their order.

    `row` is what the manifest says of it. `withdrawn`: nobody may use it.
    """

    variant: str
    files: tuple[File, ...]
    row: Variant | None = None
    withdrawn: bool = False

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.size for file in self.files)

    @property
    def is_wide(self) -> bool:
        """Whether its weights have 16 bits or more."""
        return self.variant in WIDE

    @property
    def bits(self) -> float | None:
        """Bits per weight, where the manifest says."""
        return self.row.bits_per_weight if self.row else None


def offers_of(believed: Believed) -> tuple[Offer, ...]:
    """Return what is offered, as the manifest says, else by the names of the files.

    Raises:
        IntegrityError: the place lists other bytes than its manifest.
        RegistryError: it offers nothing.
    """
    manifest, listing = believed.manifest, believed.listing
    if manifest is not None:
        found = tuple(_of_manifest(manifest, listing, believed.withdrawn))
        if not found:
            raise IntegrityError(
                f"{manifest.identity} release {manifest.release} offers no model:"
                " its publisher withdrew them",
                mend="pull an earlier release by its number, or another model",
            )
        return found
    found = tuple(_by_name(listing, believed.withdrawn))
    if not found:
        raise RegistryError("there is no GGUF model in it", mend="check the name")
    return found


def _of_manifest(
    manifest: Manifest, listing: Listing, withdrawn: Mapping[str, str]
) -> Iterator[Offer]:
    for row in manifest.variants:
        entry = row.file
        listed = listing.files.get(entry.path)
        if listed is not None and (
            listed.size != entry.size or (listed.sha256 or entry.sha256) != entry.sha256
        ):
            raise IntegrityError(
                f"{entry.path} is listed with other bytes than the manifest says: the place mixes"
                " up releases, or was altered",
                mend="pull again later, or from another registry; tell the publisher",
            )
        file = File(entry.path, entry.size, entry.sha256)
        yield Offer(row.variant, (file,), row, entry.sha256 in withdrawn)


def _by_name(listing: Listing, withdrawn: Mapping[str, str]) -> Iterator[Offer]:
    taken: set[str] = set()
    for path in sorted(listing.files):
        file = listing.files[path]
        lowered = file.name.lower()
        if not lowered.endswith(".gguf") or any(word in lowered for word in _NO_MODEL):
            continue
        parts = _parts(path, listing)
        if not parts:
            continue
        label = _label(path)
        while label in taken:
            label += "_2"
        taken.add(label)
        is_withdrawn = any(part.sha256 in withdrawn for part in parts)
        yield Offer(label, parts, None, is_withdrawn)


def _parts(path: str, listing: Listing) -> tuple[File, ...]:
    """Return the file, or all parts of it if it is the first; nothing for a later part."""
    match = _PART.fullmatch(path)
    if match is None:
        return (listing.files[path],)
    count = int(match["count"])
    if int(match["number"]) != 1 or not 1 <= count <= _MOST_PARTS:
        return ()
    paths = [f"{match['stem']}-{n:05}-of-{count:05}.gguf" for n in range(1, count + 1)]
    if any(each not in listing.files for each in paths):
        return ()
    return tuple(listing.files[each] for each in paths)


def _label(path: str) -> str:
    """Return the name of a variant for a file: the Hub's label, else made of its name."""
    name = path.rpartition("/")[2]
    label = hub_label(name)
    if label is None:
        label = re.sub(r"[^A-Z0-9]+", "_", name.upper().removesuffix(".GGUF")).strip("_")
    label = label.removeprefix("UD-")
    return label if names.VARIANT.fullmatch(label) and len(label) <= 60 else "MODEL"
