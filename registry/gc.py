"""Garbage collection: mark what is needed, move the rest out, look again, then remove it.

What is moved out keeps its bytes below `trash/` until a second look at all marks; whoever needs
it meanwhile takes it back by a rename, and so does the next opener if the collector is killed.
A pin is added under a lock that the collector holds while it looks and moves, so that a pinned
object is not absent even for a moment. Where a file system's locks don't work, that moment is all
that is lost: never an object.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Final, Literal

from quantmint import names
from quantmint.errors import UserError
from quantmint.files import full_disk_explained, sweep_temporaries
from quantmint.registry.ages import show_age
from quantmint.registry.leases import exclusive
from quantmint.registry.marks import Marks, Why
from quantmint.registry.store import Store
from quantmint.registry.sweeping import Trashed, put_back, trash_path
from quantmint.registry.transfer.partial import stale_partials, sweep_partials

_Row = tuple[Literal["object", "tree"], str]

DAY: Final = 86400.0
# How many are moved out while pins wait: 0.1 s of work at most.
_BATCH: Final = 256


@dataclass(frozen=True, slots=True)
class Policy:
    """What is kept although nothing needs it. Ages in seconds; None keeps every action record."""

    unnamed_age: float = DAY
    action_age: float | None = 30 * DAY
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """An object, its size in bytes, and why it is kept (None: it is not)."""

    sha256: str
    size: int
    why: Why | None = None


@dataclass(slots=True)
class Report:
    """What a collection did, or (dry) would do. `freed` counts bytes that no link holds."""

    removed: list[Item] = field(default_factory=list)
    kept: list[Item] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    records: list[str] = field(default_factory=list)
    temporaries: list[Path] = field(default_factory=list)
    partials: list[Path] = field(default_factory=list)
    freed: int = 0


def collect(store: Store, policy: Policy, *, model_folders: Sequence[Path] = ()) -> Report:
    """Remove what nothing needs; any number of processes may use the store meanwhile.

    Args:
        store: an open store.
        policy: what to keep for how long.
        model_folders: folders with links to objects, which are kept as long as the links are.

    Raises:
        IntegrityError: a reference is damaged; nothing is removed.
        UserError: the disk failed, or another collector holds the lock.
    """
    try:
        with full_disk_explained(store.root):
            return _Collection(store, policy, model_folders).run()
    except PermissionError as error:
        raise _no_right(error) from error


def free(store: Store, digests: Iterable[str], *, model_folders: Sequence[Path] = ()) -> Report:
    """Remove those of some objects, however young, that nothing needs any more; nothing else.

    They are what a reference named that was just removed. Who put one of them again meanwhile, or
    found it, has pinned it.

    Raises:
        IntegrityError, UserError: see `collect`; objects may be left, which it removes later.
    """
    try:
        with full_disk_explained(store.root):
            policy = Policy(unnamed_age=0.0, action_age=None)
            return _Collection(store, policy, model_folders).free(sorted(set(digests)))
    except PermissionError as error:
        raise _no_right(error) from error


class _Collection:
    def __init__(self, store: Store, policy: Policy, model_folders: Sequence[Path]) -> None:
        self._store = store
        self._policy = policy
        self._folders = model_folders
        self._marks = Marks(store, model_folders=model_folders, action_age=policy.action_age)
        self._name = ""
        self._report = Report()

    def run(self) -> Report:
        self._marks.update()
        expired = self._marks.expired_records()
        self._report.records = [path.stem for path in expired]
        doomed = self._look(self._store.blobs())
        folders = self._dead_folders({item.sha256 for item in doomed})
        if self._policy.dry_run:
            self._report.removed, self._report.folders = doomed, folders
            self._report.freed = sum(self._frees(self._store.path(i.sha256)) for i in doomed)
            self._report.partials = self._partials()
            return self._report
        for path in expired:
            path.unlink(missing_ok=True)
        self._take(chain[_Row]((("tree", s) for s in folders), self._rows(doomed)))
        for folder in (*self._folders, self._store.actions, self._store.refs):
            self._report.temporaries += sweep_temporaries(folder)
        self._report.partials = self._partials()
        return self._report

    def free(self, digests: Sequence[str]) -> Report:
        self._marks.update()
        self._take(self._rows(self._look(map(self._store.path, digests))))
        return self._report

    @staticmethod
    def _rows(doomed: Sequence[Item]) -> Iterator[_Row]:
        return (("object", item.sha256) for item in doomed)

    def _take(self, rows: Iterator[_Row]) -> None:
        self._name = self._collector_name()
        while batch := list(islice(rows, _BATCH)):
            self._remove(self._move_out(batch))

    def _partials(self) -> list[Path]:
        """Remove (dry: find) the transfers that nobody goes on with, and count their bytes."""
        age, dry = self._policy.unnamed_age, self._policy.dry_run
        found = stale_partials(self._store, older_than=age)
        self._report.freed += sum(self._frees(path / "data") for path in found)
        return found if dry else sweep_partials(self._store, older_than=age)

    def _collector_name(self) -> str:
        """Return a name for what we move out.

        On a full disk there is no room for a lease: others take us for dead and put back what
        they find, which costs only room.
        """
        try:
            return self._store.lease.name
        except OSError:
            return secrets.token_hex(8)

    def _look(self, paths: Iterable[Path]) -> list[Item]:
        """Sort the objects into those to keep, with the reason, and those to remove."""
        doomed: list[Item] = []
        for path in paths:
            found = _regular(path)
            if found is None:
                continue
            item = Item(path.name, found.st_size, self._why(path.name, found))
            (self._report.kept if item.why else doomed).append(item)
        return doomed

    def _why(self, sha256: str, found: os.stat_result) -> Why | None:
        why = self._marks.why.get(sha256)
        if why is None and _age(found) < self._policy.unnamed_age:
            return Why("young", f"younger than {show_age(self._policy.unnamed_age)}")
        return why

    def _dead_folders(self, doomed: set[str]) -> list[str]:
        """Return the checkouts whose list of files is not needed, or not there any more."""
        dead = []
        for path in sorted(self._store.trees.iterdir()):
            if names.DIGEST.fullmatch(path.name) is None or path.name in self._marks.why:
                continue
            gone = path.name in doomed or not self._store.path(path.name).is_file()
            with contextlib.suppress(FileNotFoundError):
                if gone and _age(path.lstat()) >= self._policy.unnamed_age:
                    dead.append(path.name)
        return dead

    def _move_out(self, batch: list[_Row]) -> list[Trashed]:
        """Move out what is still not needed; nobody can pin anything meanwhile."""
        moved = []
        with exclusive(self._store.root / "gc.lock"):
            self._marks.update()
            for kind, sha256 in batch:
                if sha256 in self._marks.why:
                    continue
                final = self._store.path(sha256) if kind == "object" else self._store.trees / sha256
                path = trash_path(self._store, self._name, kind, sha256)
                try:
                    if kind == "object" and _age(final.lstat()) < self._policy.unnamed_age:
                        continue  # put again meanwhile
                    final.rename(path)
                except FileNotFoundError:
                    continue
                moved.append(Trashed(path, self._name, kind, sha256))
        return moved

    def _remove(self, moved: list[Trashed]) -> None:
        """Look at the marks once more: put back what came to be needed, remove the rest."""
        self._marks.update()
        for item in moved:
            if item.sha256 in self._marks.why:
                put_back(self._store, item)
            elif item.kind == "tree":
                self._report.freed += sum(self._frees(p) for p in item.path.rglob("*"))
                shutil.rmtree(item.path, ignore_errors=True)
                self._report.folders.append(item.sha256)
            else:
                with contextlib.suppress(FileNotFoundError):  # taken back: it is needed
                    found = item.path.lstat()
                    self._report.freed += self._frees(item.path)
                    item.path.unlink()
                    self._report.removed.append(Item(item.sha256, found.st_size))

    @staticmethod
    def _frees(path: Path) -> int:
        """Return how many bytes go with the last name of a file."""
        found = _regular(path)
        return found.st_blocks * 512 if found is not None and found.st_nlink == 1 else 0


def _no_right(error: PermissionError) -> UserError:
    return UserError(
        f"{error.filename}: {error.strerror}; who can't read everything can't collect",
        mend="run it as the user who owns the store",
    )


def _regular(path: Path) -> os.stat_result | None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def _age(found: os.stat_result) -> float:
    """Return the seconds since anything happened to a file: a write, a rename, a link."""
    return max(0.0, time.time() - max(found.st_mtime, found.st_ctime))


def objects_by_reason(report: Report) -> Iterator[tuple[str, int, int]]:
    """Yield each reason for keeping objects, how many there are and their bytes."""
    counted: dict[str, tuple[int, int]] = {}
    for item in report.kept:
        assert item.why is not None
        count, size = counted.get(item.why.text, (0, 0))
        counted[item.why.text] = (count + 1, size + item.size)
    for text, (count, size) in sorted(counted.items(), key=lambda row: -row[1][1]):
        yield text, count, size
