"""What a place offers: its models, by variant, out of the manifest or by their names alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from quantmint.errors import IntegrityError, RegistryError
from quantmint.registry.linter.listing import SHARD, SIDECARS
from quantmint.registry.manifest.release import Manifest, Variant
from quantmint.registry.pull.believe import Believed
from quantmint.registry.pull.places import File, Listing
from quantmint.registry.pull.variants import is_wide, label_of, variant_names

_MOST_PARTS: Final = 256


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
        return is_wide(self.label)

    @property
    def label(self) -> str:
        """What its file alone says that it is; the variant's name may say more."""
        return self.variant if self.row else label_of(self.files[0].path)

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
    found = {}
    for path in sorted(listing.files):
        lowered = listing.files[path].name.lower()
        if lowered.endswith(".gguf") and not any(word in lowered for word in SIDECARS):
            found[path] = _parts(path, listing)
    found = {path: parts for path, parts in found.items() if parts}
    for variant, parts in zip(variant_names(list(found)), found.values(), strict=True):
        yield Offer(variant, parts, None, any(part.sha256 in withdrawn for part in parts))


def _parts(path: str, listing: Listing) -> tuple[File, ...]:
    """Return the file, or all parts of it if it is the first; nothing for a later part."""
    match = SHARD.fullmatch(path)
    if match is None:
        return (listing.files[path],)
    count = int(match["count"])
    if int(match["index"]) != 1 or not 1 <= count <= _MOST_PARTS:
        return ()
    paths = [f"{match['prefix']}-{n:05}-of-{count:05}.gguf" for n in range(1, count + 1)]
    if any(each not in listing.files for each in paths):
        return ()
    return tuple(listing.files[each] for each in paths)
