"""Bringing a chosen variant into the store: from the Hub's cache, by tensor, or whole."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from quantmint.errors import IntegrityError, QuantmintError, RegistryError
from quantmint.files import clone_or_copy, sha256_of
from quantmint.registry import gguf
from quantmint.registry.hf_cache import cached_blob
from quantmint.registry.manifest.codec import INDEX_LIMIT
from quantmint.registry.manifest.release import ENVELOPE_FILE, MANIFEST_FILE
from quantmint.registry.pull.believe import Believed
from quantmint.registry.pull.folder import PlainPlace
from quantmint.registry.pull.kept import all_kept
from quantmint.registry.pull.offers import Offer
from quantmint.registry.pull.places import File, Listing, Place, nonsense
from quantmint.registry.store import Blob, Store
from quantmint.registry.tensors import TensorTable, check_table, read_table
from quantmint.registry.transfer import Fetched, Item, Limits, LocalFile, Origin, fetch_all
from quantmint.registry.transfer.model import Report
from quantmint.watching import naming

_SMALL: Final = 1 << 20
_ROLES: Final = frozenset({"ollama", "license", "provenance"})
_UNHASHED: Final = 64 << 20
_MOST_LOCAL: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Getting:
    """How something is fetched."""

    store: Store
    limits: Limits = field(default_factory=Limits)
    mirrors: Sequence[Origin] = ()
    progress: Report | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Got:
    """The objects by path, and what each large file took."""

    objects: dict[str, Blob]
    took: tuple[Fetched, ...] = ()
    adopted: tuple[str, ...] = field(default=())

    @property
    def fetched(self) -> int:
        """Bytes that came over the wire, or out of a folder."""
        return sum(one.fetched for one in self.took)

    @property
    def reused(self) -> int:
        """Bytes that were on this machine already."""
        return sum(one.reused for one in self.took)


def get(place: Place, believed: Believed, offer: Offer, how: Getting) -> Got:
    """Bring an offer's files, and the small ones that belong to it, into the store.

    Raises:
        RegistryError, UserError, IntegrityError: see `transfer.fetch`; the last also for a file
            that the strict reader refuses: nothing of it stays.
    """
    store = how.store
    origins = [*place.origins(believed.listing), *how.mirrors]
    objects: dict[str, Blob] = {}
    table = _small_files(believed, offer, origins, how, objects)
    took: list[Fetched] = []
    adopted = []
    for file in offer.files:
        with naming(file.path):
            file = _with_digest(place, believed.listing, file, store)  # noqa: PLW2901
            assert file.sha256 is not None
            blob = Blob(file.sha256, file.size)
            was_there = store.has(blob)
            if not was_there and _from_hub_cache(store, blob):
                adopted.append(file.path)
            item = Item(sha256=file.sha256, size=file.size, path=file.path, table=table,
                        local=_local_files(store, table, blob))  # fmt: skip
            took += fetch_all([item], origins, store, limits=how.limits, progress=how.progress)
            _gate(store, blob, file.name, table, keep=was_there)
        objects[file.path] = blob
    return Got(objects=objects, took=tuple(took), adopted=tuple(adopted))


def _small_files(
    believed: Believed,
    offer: Offer,
    origins: Sequence[Origin],
    how: Getting,
    objects: dict[str, Blob],
) -> TensorTable | None:
    """Bring the manifest, the table of tensors and other small files; return the table."""
    store, manifest = how.store, believed.manifest
    if manifest is None or offer.row is None:
        return None
    for name, data in ((MANIFEST_FILE, believed.plain), (ENVELOPE_FILE, believed.envelope)):
        if data is not None:
            objects[name] = store.put_bytes(data)
    entries = [offer.row.tensors] if offer.row.tensors.size <= INDEX_LIMIT else []
    entries += [e for e in manifest.files if e.role in _ROLES and e.size <= _SMALL]
    items = [Item(sha256=e.sha256, size=e.size, path=e.path) for e in entries]
    fetch_all(items, origins, store, limits=how.limits)
    objects |= {entry.path: Blob(entry.sha256, entry.size) for entry in entries}
    if offer.row.tensors not in entries:
        return None
    entry, file = offer.row.tensors, offer.row.file
    table = read_table(store.read(objects[entry.path]), what=entry.path)
    if (table.file, table.size, table.sha256) != (file.path, file.size, file.sha256):
        raise IntegrityError(
            f"{entry.path} is the table of another file than {file.path}",
            mend="the release is wrong in itself: tell its publisher",
        )
    return table


def _with_digest(place: Place, listing: Listing, file: File, store: Store) -> File:
    """Return a file with its sha256, where the place does not list one."""
    if file.sha256 is not None:
        return file
    if isinstance(place, PlainPlace):
        path = place.root / file.path
        return File(file.path, path.stat().st_size, sha256_of(path))
    if file.git_oid is None or file.size > _UNHASHED:
        raise RegistryError(
            f"{place.name} lists no digest of {file.path}, so its bytes can't be checked",
            mend="pull it from another repository",
        )
    data = place.read(listing, file.path, file.size)
    digest = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
    if len(data) != file.size or digest.hexdigest() != file.git_oid:
        raise nonsense(place.name, f"{file.path} is not what it lists")
    blob = store.put_bytes(data)
    return File(file.path, blob.size, blob.sha256)


def _from_hub_cache(store: Store, blob: Blob) -> bool:
    """Take over a file of the Hub's cache if its bytes are right, whatever its name says."""
    found = cached_blob(blob.sha256, blob.size)
    if found is None:
        return False
    try:
        store.require_room(blob.size)
        with store.stage() as folder:
            clone_or_copy(found, folder / "copy")
            store.adopt(folder / "copy", size=blob.size, sha256=blob.sha256)
    except (IntegrityError, OSError):
        return False  # damaged there: it is fetched
    return True


def _local_files(store: Store, table: TensorTable | None, wanted: Blob) -> tuple[LocalFile, ...]:
    """Return files here whose tensors may be used again: other variants, other releases."""
    if table is None or store.has(wanted):
        return ()
    found: dict[str, LocalFile] = {}
    for kept in all_kept(store):
        for path, blob in kept.objects.items():
            if path.startswith("tensors/") and len(found) < _MOST_LOCAL:
                one = _local_file(store, path, blob)
                if one is not None:
                    found.setdefault(one.table.sha256, one)
    wanted_names = {row.sha256 for row in table.tensors}
    useful = [f for f in found.values() if wanted_names & {r.sha256 for r in f.table.tensors}]
    return tuple(useful)


def _local_file(store: Store, path: str, blob: Blob) -> LocalFile | None:
    try:
        table = read_table(store.read(blob), what=path)
        if store.has(Blob(table.sha256, table.size)):
            return LocalFile(store.path(table.sha256), table)
    except QuantmintError:
        pass
    return None


def _gate(store: Store, blob: Blob, name: str, table: TensorTable | None, *, keep: bool) -> None:
    """Read the header strictly before any native parser may see the file; drop a refused one."""
    path = store.path(blob.sha256)
    try:
        gguf.read(path)
        if table is not None:
            check_table(table, path)
    except IntegrityError as error:
        if not keep:
            store.remove(blob)
        what = error.what.replace(path.name, name)
        raise IntegrityError(
            f"{what}; it was thrown away", mend="tell its publisher; no program should open it"
        ) from error
