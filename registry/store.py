"""The content-addressed store: immutable objects named by their sha256.

    objects/sha256/ab/<64 hex>   immutable, read-only
    trees/<64 hex>/<name>/...    folders linked together from objects
    actions/<64 hex>.json        the action cache (see `actions`)
    staging/<pid>.<random>/      same file system, swept once its process is gone

Put = staging file, length check, fsync, hash of what is on disk, read-only, rename, fsync of the
folder. Correctness never depends on a lock: a name appears by rename, with its bytes behind it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from quantmint import names
from quantmint.errors import BugError, IntegrityError, UserError
from quantmint.files import (
    clone,
    clone_or_copy,
    fsync_file,
    fsync_folder,
    full_disk_explained,
    out_of_space,
    sha256_of,
)


@dataclass(frozen=True, slots=True)
class Blob:
    """An object in the store: the sha256 of its bytes, and its size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Fault:
    """One finding of `verify`: `corrupt`, `unknown` or `unreadable`, and where."""

    verdict: str
    path: Path


class Store:
    """The store below `root`; any number of processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.objects = root / "objects" / "sha256"
        self.trees = root / "trees"
        self.actions = root / "actions"
        self.staging = root / "staging"

    def open(self) -> Store:
        """Make the folders, sweep what killed processes left, and return the store itself.

        Raises:
            UserError: the folder can't be written.
        """
        try:
            with full_disk_explained(self.root):
                for folder in (self.objects, self.trees, self.actions, self.staging):
                    folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"the store {self.root} can't be written: {error.strerror}",
                mend="set QUANTMINT_HOME to a folder of your own",
            ) from error
        self._sweep()
        return self

    def path(self, sha256: str) -> Path:
        """Return where the object of that digest is, or would be."""
        names.digest(sha256)
        return self.objects / sha256[:2] / sha256

    def has(self, blob: Blob) -> bool:
        """Return whether the object is there at its full size. The bytes are not hashed again:

        an object got its name after it was hashed on disk, and `verify` hashes all of them.
        """
        try:
            found = self.path(blob.sha256).stat()
        except FileNotFoundError:
            return False
        return stat.S_ISREG(found.st_mode) and found.st_size == blob.size

    def find(self, sha256: str) -> Blob:
        """Return the object of that digest.

        Raises:
            IntegrityError: it is not in the store.
        """
        try:
            return Blob(sha256, self.path(sha256).stat().st_size)
        except FileNotFoundError:
            raise missing(Blob(sha256, 0)) from None

    @contextmanager
    def stage(self) -> Iterator[Path]:
        """Give a fresh folder on the store's file system; it is gone when the block ends."""
        self.staging.mkdir(parents=True, exist_ok=True)
        folder = self.staging / f"{os.getpid()}.{secrets.token_hex(6)}"
        folder.mkdir(mode=0o700)
        try:
            with full_disk_explained(self.root):
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def adopt(self, staged: Path, *, size: int | None = None) -> Blob:
        """Move a finished file out of a `stage()` folder into the store.

        Args:
            staged: a file on the store's file system; it is gone afterwards.
            size: its expected size in bytes, if known.

        Raises:
            IntegrityError: its length is not `size`.
            UserError: the disk is full.
        """
        if not staged.is_relative_to(self.staging):
            raise BugError(f"{staged} is not in the staging area")
        found = staged.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise IntegrityError(f"{staged.name} is no regular file")
        if size is not None and found.st_size != size:
            raise IntegrityError(
                f"{staged.name} has {found.st_size} bytes where {size} were expected",
                mend="run the same command again; the incomplete file was thrown away",
            )
        with full_disk_explained(self.root):
            fsync_file(staged)
            blob = Blob(sha256_of(staged), found.st_size)
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

    def read(self, blob: Blob, *, limit: int = 1 << 24) -> bytes:
        """Return the bytes of a small object, hashed again as they are read.

        Raises:
            IntegrityError: it is missing, larger than `limit`, or not what its name says.
        """
        if blob.size > limit or not self.has(blob):
            raise missing(blob)
        path = self.path(blob.sha256)
        data = path.read_bytes()
        if sha256_of(path) != blob.sha256:
            raise corrupt(path)
        return data

    def link(self, blob: Blob, target: Path) -> None:
        """Make the object appear as `target`: a clone, else a hard link, else a copy.

        Raises:
            IntegrityError: the object is not in the store.
        """
        if not self.has(blob):
            raise missing(blob)
        source = self.path(blob.sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        staged = target.parent / f".{target.name}.{os.getpid()}.{secrets.token_hex(6)}"
        try:
            if not clone(source, staged):
                try:
                    os.link(source, staged)
                except OSError:
                    clone_or_copy(source, staged)
                    fsync_file(staged)
            staged.rename(target)
            fsync_folder(target.parent)
        finally:
            staged.unlink(missing_ok=True)

    def remove(self, blob: Blob) -> bool:
        """Remove one object; return whether it was there."""
        try:
            self.path(blob.sha256).unlink()
        except FileNotFoundError:
            return False
        return True

    def blobs(self) -> Iterator[Path]:
        """Yield the path of everything in the objects folder, in order."""
        for folder in sorted(self.objects.iterdir()):
            yield from sorted(folder.iterdir()) if folder.is_dir() else [folder]

    def verify(self) -> Iterator[Fault]:
        """Hash every object again; yield what is corrupt, unknown or unreadable."""
        for path in self.blobs():
            if names.DIGEST.fullmatch(path.name) is None or path.parent.name != path.name[:2]:
                yield Fault("unknown", path)
                continue
            try:
                actual = sha256_of(path)
            except OSError:
                yield Fault("unreadable", path)
                continue
            if actual != path.name:
                yield Fault("corrupt", path)

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

    def _sweep(self) -> None:
        """Remove staging folders whose process is gone, and nothing else."""
        for folder in self.staging.iterdir():
            pid = folder.name.partition(".")[0]
            if pid.isdecimal() and not _alive(int(pid)):
                with contextlib.suppress(OSError):
                    shutil.rmtree(folder)


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


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
