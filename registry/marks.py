"""What may not be collected, and why: leases, references, action records, model files.

They are read in that order. A process pins an object, then names it in a record or a reference,
and lets go at its end: whoever reads the leases first sees one of the two at any time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from quantmint import names
from quantmint.errors import QuantmintError
from quantmint.registry.actions import outputs_of
from quantmint.registry.leases import judge, read_pins
from quantmint.registry.refs import parse_ref, read_bytes, ref_files
from quantmint.registry.store import ATTRIBUTE, Blob, Store
from quantmint.registry.sweeping import LEASE, trashed
from quantmint.registry.trees import looks_like_tree, parse_tree

_LONGEST_TREE: Final = 16 << 20
_State = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Why:
    """A reason to keep an object: its kind, to count by, and its words."""

    kind: str
    text: str


class Marks:
    """The digests that are needed. `update` reads again only what changed."""

    def __init__(
        self, store: Store, *, model_folders: Sequence[Path] = (), action_age: float | None = None
    ) -> None:
        self._store = store
        self._folders = tuple(model_folders)
        self._action_age = action_age
        self._read: dict[Path, tuple[_State, dict[str, Why]]] = {}
        self._files: dict[str, tuple[str, ...]] = {}
        self.why: dict[str, Why] = {}

    def update(self) -> None:
        """Mark everything that is needed now.

        Raises:
            IntegrityError: a reference is damaged, so that nobody can say what it needs.
            OSError: a lease, a reference or a record can't be read.
        """
        roots: dict[str, Why] = {}
        for found in (self._leased(), self._referenced(), self._recorded(), self._model_files()):
            for sha256, why in found:
                roots.setdefault(sha256, why)
        for sha256, why in list(roots.items()):
            for part in self._parts(sha256):
                roots.setdefault(part, why)
        self.why = roots

    def expired_records(self) -> list[Path]:
        """Return the action records that were of no use for too long."""
        if self._action_age is None:
            return []
        latest = time.time() - self._action_age
        return [path for path in self._records() if _time_of(path) <= latest]

    def _leased(self) -> Iterator[tuple[str, Why]]:
        for path in sorted(self._store.leases.iterdir()):
            if not LEASE.fullmatch(path.name) or judge(path) == "dead":
                continue
            try:
                who, pins = read_pins(path)
            except FileNotFoundError:
                continue
            for sha256 in pins:
                yield sha256, Why("process", f"in use by {who}")

    def _referenced(self) -> Iterator[tuple[str, Why]]:
        def read(path: Path) -> dict[str, Why]:
            ref = parse_ref(path, read_bytes(path))
            why = Why("reference", f"reference {ref.model}/{ref.release}")
            return {blob.sha256: why for blob in ref.objects.values()}

        for path in ref_files(self._store):
            yield from self._cached(path, read)

    def _recorded(self) -> Iterator[tuple[str, Why]]:
        def read(path: Path) -> dict[str, Why]:
            try:
                name, outputs = outputs_of(path.read_bytes())
            except ValueError:
                return {}  # a record that can't be read is only work to do again
            why = Why("action", f"made by the action {name}")
            return {blob.sha256: why for blob in outputs.values()}

        expired = set(self.expired_records())
        for path in self._records():
            if path not in expired:
                yield from self._cached(path, read)

    def _records(self) -> list[Path]:
        files = sorted(self._store.actions.iterdir())
        return [
            path for path in files if path.suffix == ".json" and names.DIGEST.fullmatch(path.stem)
        ]

    def _cached(
        self, path: Path, read: Callable[[Path], dict[str, Why]]
    ) -> Iterator[tuple[str, Why]]:
        try:
            found = path.stat()
            state = (found.st_mtime_ns, found.st_ino, found.st_size)
            known = self._read.get(path)
            if known is None or known[0] != state:
                known = self._read[path] = (state, read(path))
        except FileNotFoundError:
            return
        yield from known[1].items()

    def _model_files(self) -> Iterator[tuple[str, Why]]:
        """Yield what the files below the model folders are made of: by inode, or by attribute."""
        linked = [path for folder in self._folders for path in _files_below(folder)]
        by_inode = self._inodes() if linked else {}
        for path in linked:
            sha256 = _object_of(path, by_inode)
            if sha256 is not None:
                yield sha256, Why("model file", f"model file {path.name}")

    def _inodes(self) -> dict[tuple[int, int], str]:
        inodes = {}
        moved = [item.path for item in trashed(self._store) if item.kind == "object"]
        for path in (*self._store.blobs(), *moved):
            with contextlib.suppress(FileNotFoundError):
                found = path.lstat()
                if found.st_nlink > 1 and stat.S_ISREG(found.st_mode):
                    inodes[(found.st_dev, found.st_ino)] = path.name[-64:]
        return inodes

    def _parts(self, sha256: str) -> tuple[str, ...]:
        """Return the files of a folder, if the object lists one."""
        if sha256 not in self._files:
            parts = self._listed(sha256)
            if parts is None:
                return ()
            self._files[sha256] = parts
        return self._files[sha256]

    def _listed(self, sha256: str) -> tuple[str, ...] | None:
        """Return what an object lists, or None if it is not there at all."""
        path = self._store.path(sha256)
        if not path.is_file():
            moved = [item.path for item in trashed(self._store) if item.sha256 == sha256]
            path = next((item for item in moved if item.is_file()), path)
        try:
            with path.open("rb") as file:
                head = file.read(32)
                if not looks_like_tree(head) or path.stat().st_size > _LONGEST_TREE:
                    return ()
                data = head + file.read()
        except FileNotFoundError:
            return None
        try:
            return tuple(
                file.blob.sha256 for file in parse_tree(Blob(sha256, len(data)), data).files
            )
        except QuantmintError:
            return ()


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder; an error is no empty folder, unless it is not there."""

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    for base, _, files in os.walk(folder, onerror=refuse):
        for name in files:
            yield Path(base) / name


def _object_of(path: Path, by_inode: Mapping[tuple[int, int], str]) -> str | None:
    """Return the object that a model file is, or None. An error that says neither is raised."""
    try:
        found = path.stat()
        return by_inode.get((found.st_dev, found.st_ino)) or _attribute(path)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ELOOP, errno.ENOTDIR}:
            return None
        raise


def _attribute(path: Path) -> str | None:
    """Return the digest that a clone or a copy carries, or None."""
    try:
        value = os.getxattr(path, ATTRIBUTE).decode("ascii", "replace")
    except OSError as error:
        if error.errno in {errno.ENODATA, errno.EOPNOTSUPP}:
            return None
        raise
    return value if names.DIGEST.fullmatch(value) else None


def _time_of(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()
