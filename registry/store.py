"""The content-addressed store: immutable objects named by their sha256.

    objects/sha256/ab/<64 hex>      immutable, read-only
    refs/<model>/<release>.json     what a release needs (see `refs`)
    trees/<64 hex>/<name>/...       folders linked together from objects
    actions/<64 hex>.json           the action cache (see `actions`)
    leases/<16 hex>                 which process uses what (see `leases`)
    staging/<lease>.<random>/       unfinished files, swept once their process is gone
    trash/<lease>.<kind>.<64 hex>   what a collector moved out and will remove (see `gc`)

Put = staging file, length check, fsync, hash of what is on disk, read-only, rename, fsync of the
folder. Correctness never depends on a lock: a name appears by rename, with its bytes behind it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from quantmint import names
from quantmint.errors import BugError, IntegrityError, UserError
from quantmint.files import (
    clone,
    clone_or_copy,
    fsync_file,
    fsync_folder,
    full_disk_explained,
    make_folders,
    move_into_place,
    out_of_space,
    sha256_of_open,
    temporary_name,
    write_synced,
)
from quantmint.registry.leases import Lease, own_lease
from quantmint.registry.sweeping import Trashed, put_back, sweep, trashed
from quantmint.registry.verifying import Fault, verify_objects

ATTRIBUTE: Final = "user.quantmint.sha256"
# How often an object is looked for that collectors may have away for a moment: each of them does
# so once at most after it was pinned.
_LOOKS: Final = range(8)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Blob:
    """An object in the store: the sha256 of its bytes, and its size in bytes."""

    sha256: str
    size: int


class Store:
    """The store below `root`; any number of processes may use it at once.

    What actions made before the moment `not_before` (seconds since 1970) is made again.
    """

    def __init__(self, root: Path, *, not_before: float = 0.0) -> None:
        self.root = root
        self.not_before = not_before
        self.objects = root / "objects" / "sha256"
        self.refs = root / "refs"
        self.trees = root / "trees"
        self.actions = root / "actions"
        self.leases = root / "leases"
        self.staging = root / "staging"
        self.trash = root / "trash"
        self._is_open = False

    def open(self) -> Store:
        """Make the folders, sweep what killed processes left, and return the store itself.

        An opened store protects what it finds: an object that `has` or `find` saw, or that was
        put, can't be collected before this process ends. One that was not opened only looks.

        Raises:
            UserError: the folder can't be written.
        """
        folders = (self.objects, self.refs, self.trees, self.actions, self.leases, self.staging,
                   self.trash)  # fmt: skip
        try:
            with full_disk_explained(self.root):
                for folder in folders:
                    make_folders(folder)
                sweep(self)
        except OSError as error:
            raise UserError(
                f"the store {self.root} can't be written: {error.strerror}",
                mend="set QUANTMINT_HOME to a folder of your own",
            ) from error
        self._is_open = True
        return self

    @property
    def lease(self) -> Lease:
        """What this process needs of the store."""
        return own_lease(self.root)

    def path(self, sha256: str) -> Path:
        """Return where the object of that digest is, or would be."""
        names.digest(sha256)
        return self.objects / sha256[:2] / sha256

    def has(self, blob: Blob) -> bool:
        """Return whether the object is there at its full size; if so it stays (see `open`).

        The bytes are not hashed again: an object got its name after it was hashed on disk, and
        `verify` hashes all of them.
        """
        return self._size(blob.sha256) == blob.size

    def find(self, sha256: str) -> Blob:
        """Return the object of that digest; it stays (see `open`).

        Raises:
            IntegrityError: it is not in the store.
        """
        size = self._size(sha256)
        if size is None:
            raise missing(Blob(sha256, 0))
        return Blob(sha256, size)

    def keep(self, sha256: str) -> None:
        """Keep an object of that digest, and a folder made of it, until this process ends."""
        if self._is_open:
            with full_disk_explained(self.root):
                self.lease.pin(sha256)

    @contextmanager
    def stage(self) -> Iterator[Path]:
        """Give a fresh folder on the store's file system; it is gone when the block ends."""
        with full_disk_explained(self.root):
            make_folders(self.leases)
            make_folders(self.staging)
            folder = self.staging / f"{self.lease.name}.{secrets.token_hex(6)}"
            try:
                folder.mkdir(mode=0o700)
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def adopt(self, staged: Path, *, size: int | None = None, sha256: str | None = None) -> Blob:
        """Move a finished file out of a `stage()` folder into the store.

        Args:
            staged: a file on the store's file system that nobody writes to or links to any more;
                it is gone afterwards.
            size: its expected size in bytes, if known.
            sha256: its expected digest, if known: with another one it stays where it is.

        Raises:
            IntegrityError: its length is not `size`, its digest not `sha256`, or it changed while
                it was hashed.
            UserError: the disk is full, or it failed.
        """
        if not staged.is_relative_to(self.staging):
            raise BugError(f"{staged} is not in the staging area")
        with full_disk_explained(self.root):
            blob = _hash_synced(staged, size)
            if sha256 not in {None, blob.sha256}:
                raise IntegrityError(f"{staged.name} has the sha256 {blob.sha256}, not {sha256}")
            self.lease.pin(blob.sha256)
            self._publish(staged, blob)
        return blob

    def put(self, source: Path) -> Blob:
        """Bring a file from outside into the store, sharing its blocks where possible."""
        with self.stage() as folder:
            staged = folder / "copy"
            clone_or_copy(source, staged)
            return self.adopt(staged, size=source.stat().st_size)

    def put_bytes(self, data: bytes) -> Blob:
        """Bring bytes into the store."""
        with self.stage() as folder:
            staged = folder / "bytes"
            staged.write_bytes(data)
            return self.adopt(staged, size=len(data))

    def write(self, path: Path, data: bytes, *, fresh: bool = False) -> None:
        """Write a record below the store's root: the old one or all of the new one is there.

        Raises:
            FileExistsError: with `fresh`, there is one already; it stays as it is.
            UserError: the disk is full, or it failed.
        """
        with self.stage() as folder:
            staged = folder / "record"
            write_synced(staged, data)
            make_folders(path.parent)
            if fresh:
                os.link(staged, path)
                fsync_folder(path.parent)
            else:
                move_into_place(staged, path)

    def read(self, blob: Blob, *, limit: int = 1 << 24) -> bytes:
        """Return the bytes of a small object, hashed as they are read.

        Raises:
            IntegrityError: it is missing, larger than `limit`, or not what its name says.
        """
        if blob.size > limit:
            raise missing(blob)
        path = self.path(blob.sha256)
        with full_disk_explained(path):
            data = self.using(blob, Path.read_bytes)
        if hashlib.sha256(data).hexdigest() != blob.sha256:
            raise corrupt(path)
        return data

    def using(self, blob: Blob, use: Callable[[Path], T]) -> T:
        """Return what `use` makes of the object's path; it stays (see `open`).

        Where the file system's locks don't work, a collector may have it away for the moment
        between its two looks (see `gc`): it is put back, and used then.

        Raises:
            IntegrityError: the object is not in the store.
        """
        path = self.path(blob.sha256)
        for _ in _LOOKS:
            if not self.has(blob):
                break
            try:
                return use(path)
            except FileNotFoundError:
                if path.exists():  # something else is missing
                    raise
        raise missing(blob)

    def link(self, blob: Blob, target: Path) -> None:
        """Make the object appear as `target`: a clone, else a hard link, else a copy.

        Through a hard link a stubborn writer (root, or after a chmod) reaches the object itself:
        it is read-only, `has` sees another size, and `verify` sees any other bytes.

        Raises:
            IntegrityError: the object is not in the store.
            UserError: the disk is full, or it failed.
        """
        if not self.has(blob):
            raise missing(blob)
        with full_disk_explained(target.parent):
            make_folders(target.parent)
            staged = temporary_name(target)
            try:
                self.using(blob, lambda path: share(path, staged))
                move_into_place(staged, target)
            finally:
                with contextlib.suppress(OSError):
                    staged.unlink()

    def remove(self, blob: Blob) -> bool:
        """Remove one object, whoever needs it; return whether it was there."""
        try:
            self.path(blob.sha256).unlink()
        except FileNotFoundError:
            return False
        return True

    def blobs(self) -> Iterator[Path]:
        """Yield the path of everything in the objects folder, in order."""
        for folder in sorted(self.objects.iterdir()):
            yield from sorted(folder.iterdir()) if folder.is_dir() else [folder]

    def verify(self, on_bytes: Callable[[int], None] | None = None) -> Iterator[Fault]:
        """Hash every object again; yield what is corrupt, unknown or unreadable (see `verify`)."""
        return verify_objects(list(self.blobs()), on_bytes)

    def require_room(self, needed: int) -> None:
        """Refuse work that can't fit on the disk before it is begun.

        Raises:
            UserError: fewer than `needed` bytes are free.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(self.root).free < needed:
            raise out_of_space(self.root, needed)

    def _publish(self, staged: Path, blob: Blob) -> None:
        final = self.path(blob.sha256)
        final.parent.mkdir(exist_ok=True)
        staged.chmod(0o444)
        staged.rename(final)  # a twin that came first had the same bytes
        fsync_folder(final.parent)
        fsync_folder(self.objects)

    def _size(self, sha256: str) -> int | None:
        """Return the size of an object that is there, after pinning it, else None."""
        path = self.path(sha256)
        with full_disk_explained(self.root):
            if not self._is_open:
                return _size_of(path)
            # More than one look: between a look at its place and one at the trash it may be put
            # back, and by then another collector may have it.
            if not any(_size_of(path) is not None or self._moved_out(sha256) for _ in _LOOKS):
                return None
            # Pinned first and looked at then: who moves it out from now on sees the pin. It may
            # have been moved out just before; then it is put back, or it is gone for good.
            self.keep(sha256)
            for _ in _LOOKS:
                size = _size_of(path)
                if size is not None:
                    return size
                for item in self._moved_out(sha256):
                    put_back(self, item)
            return None

    def _moved_out(self, sha256: str) -> list[Trashed]:
        return [t for t in trashed(self) if t.sha256 == sha256 and t.kind == "object"]


def _size_of(path: Path) -> int | None:
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _hash_synced(staged: Path, size: int | None) -> Blob:
    """Check a finished file's length, make its bytes durable, and hash them as they are stored.

    Raises:
        IntegrityError: no regular file, another length, or somebody still writes to it.
        BugError: it has another name, through which it could be changed later.
    """
    if not stat.S_ISREG(staged.lstat().st_mode):
        raise IntegrityError(f"{staged.name} is no regular file")
    with staged.open("rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        if size is not None and before.st_size != size:
            raise IntegrityError(
                f"{staged.name} has {before.st_size} bytes where {size} were expected",
                mend="run the same command again; the incomplete file was thrown away",
            )
        if before.st_nlink != 1:
            raise BugError(f"{staged.name} has {before.st_nlink} names")
        os.fsync(file.fileno())
        sha256 = sha256_of_open(file, staged.name)
        after = os.fstat(file.fileno())
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise IntegrityError(
            f"{staged.name} was written to while it was hashed", mend="run the same command again"
        )
    return Blob(sha256, before.st_size)


def share(source: Path, staged: Path) -> None:
    """Give an object a second name: a clone, else a hard link, else a read-only copy.

    A clone or a copy carries the digest as an extended attribute where there are such: by it,
    `gc` knows which object it belongs to.
    """
    if not clone(source, staged):
        try:
            os.link(source, staged)
        except OSError:
            clone_or_copy(source, staged)
        else:
            return
    staged.chmod(0o644)
    with contextlib.suppress(OSError):
        os.setxattr(staged, ATTRIBUTE, source.name.encode())
    staged.chmod(0o444)
    fsync_file(staged)


def missing(blob: Blob) -> IntegrityError:
    """Return the error for an object that should be in the store and is not."""
    return IntegrityError(
        f"object {blob.sha256} is not in the store",
        mend="build the model again: quantmint build MODEL",
    )


def corrupt(path: Path) -> IntegrityError:
    """Return the error for an object whose bytes are not what its name says."""
    return IntegrityError(
        f"object {path.name} is damaged: its bytes have another sha256",
        mend=f"rm -f {path} && quantmint build MODEL",
    )
