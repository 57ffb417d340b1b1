"""An unfinished file: its bytes, and a journal of what of it is there.

    staging/part-<sha256>.<lease>.<12 hex>/
        data       the bytes, at their final places; holes where nothing came yet
        journal    {"sha256", "size"}, then one line {"s": start, "e": end, "c": crc32} each

Every process writes to a file of its own, named after its lease, so that no lock is needed. What a
dead process left is taken over by a rename, which one of many succeeds with. The journal is
believed in nothing: each of its ranges is read again and compared before it counts, and the whole
file is hashed before it gets a name in the store.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import stat
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from quantmint.files import CHUNK, make_folders
from quantmint.registry.leases import AGE_BOUND, judge
from quantmint.registry.store import Store
from quantmint.registry.transfer.model import Item
from quantmint.registry.transfer.ranges import Range, split, union

NOBODY: Final = "0" * 16
_NAME: Final = re.compile(r"part-([0-9a-f]{64})\.([0-9a-f]{16})\.[0-9a-f]{12}")
_LONGEST_JOURNAL: Final = 64 << 20
_held: Final[set[Path]] = set()


class Partial:
    """One unfinished file that is this process's own until `release` or `discard`."""

    def __init__(self, folder: Path, item: Item) -> None:
        self.folder = folder
        self.item = item
        self.data = folder / "data"
        self.done: list[Range] = []
        self._lock = threading.Lock()
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self.fd = os.open(self.data, flags, 0o600)
        self._journal = os.open(folder / "journal", flags | os.O_APPEND, 0o600)
        _held.add(folder)

    def write(self, data: bytes | memoryview, at: int) -> None:
        """Write bytes to their place.

        Raises:
            OSError: the disk is full, or it failed.
        """
        view = memoryview(data)
        while view:
            count = os.pwrite(self.fd, view, at)
            view, at = view[count:], at + count

    def record(self, start: int, end: int, crc: int) -> None:
        """Note that these bytes are there."""
        line = json.dumps({"s": start, "e": end, "c": crc}, separators=(",", ":"))
        with self._lock:
            os.write(self._journal, line.encode() + b"\n")
            self.done.append((start, end))

    def begin_anew(self) -> None:
        """Forget all that is there."""
        with self._lock:
            os.ftruncate(self.fd, 0)
            self._begin_journal()

    def load(self) -> None:
        """Find out which bytes are there: each range of the journal is read and compared."""
        rows = _rows(self._journal, self.item)
        if rows is None:
            self.begin_anew()
            return
        if os.fstat(self.fd).st_size > self.item.size:
            os.ftruncate(self.fd, self.item.size)
        self.done = union((s, e) for s, e, crc in rows if self.crc(s, e) == crc)

    def keep_only(self, ranges: Sequence[Range]) -> None:
        """Forget all but these ranges, whose bytes are known to be right."""
        kept = split(ranges, CHUNK * 4)
        with self._lock:
            self._begin_journal()
        for start, end in kept:
            crc = self.crc(start, end)
            if crc is not None:
                self.record(start, end, crc)

    def _begin_journal(self) -> None:
        os.ftruncate(self._journal, 0)
        head = {"sha256": self.item.sha256, "size": self.item.size}
        os.write(self._journal, json.dumps(head).encode() + b"\n")
        self.done = []

    def crc(self, start: int, end: int) -> int | None:
        """Return the check sum of a range as it is stored; None where the file ends before."""
        value = 0
        while start < end:
            data = os.pread(self.fd, min(CHUNK, end - start), start)
            if not data:
                return None
            value = zlib.crc32(data, value)
            start += len(data)
        return value

    def sync(self) -> None:
        """Have the disk write what it has not written yet."""
        os.fdatasync(self.fd)

    def finish(self) -> Path:
        """Cut the file to its size and let go of it; return its path, in a folder still held."""
        os.ftruncate(self.fd, self.item.size)
        self._close()
        return self.data

    def reopen(self) -> None:
        """Take hold of the file again, after what was finished turned out to be wrong."""
        self.fd = os.open(self.data, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._journal = os.open(self.folder / "journal", os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)

    def release(self) -> None:
        """Leave it to whoever goes on with it; one without any bytes is removed."""
        if not self.done:
            self.discard()
            return
        self._close()
        _held.discard(self.folder)
        with contextlib.suppress(OSError):
            self.folder.rename(_name(self.folder.parent, self.item.sha256, NOBODY))

    def discard(self) -> None:
        """Remove it."""
        self._close()
        _held.discard(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _close(self) -> None:
        for fd in (self.fd, self._journal):
            if fd >= 0:
                os.close(fd)
        self.fd = self._journal = -1


def claim(store: Store, item: Item) -> Partial:
    """Return an unfinished file of this item: one that a dead process left, else a new one.

    Raises:
        OSError: the disk is full, or it failed.
    """
    make_folders(store.staging)
    lease = store.lease.name
    for path, owner in _left(store, item.sha256):
        if not _is_free(store, path, owner, lease):
            continue
        mine = _name(store.staging, item.sha256, lease)
        try:
            path.rename(mine)
        except OSError:
            continue  # another process was quicker
        if _is_sound(mine):
            partial = Partial(mine, item)
            partial.load()
            return partial
        shutil.rmtree(mine, ignore_errors=True)
    fresh = _name(store.staging, item.sha256, lease)
    fresh.mkdir(mode=0o700)
    partial = Partial(fresh, item)
    partial.begin_anew()
    return partial


def twins(store: Store, sha256: str) -> list[Path]:
    """Return the journals of other living processes that fetch the same bytes now."""
    own = store.lease.name
    return [
        path / "journal"
        for path, owner in _left(store, sha256)
        if owner not in {own, NOBODY} and judge(store.leases / owner) == "alive"
    ]


def sweep_partials(store: Store, *, older_than: float = AGE_BOUND) -> list[Path]:
    """Remove unfinished files that nobody alive wrote to for `older_than` seconds.

    Those of objects that are in the store by now are removed at once.
    """
    removed = []
    for path in stale_partials(store, older_than=older_than):
        with contextlib.suppress(OSError):
            shutil.rmtree(path)
            removed.append(path)
    return removed


def stale_partials(store: Store, *, older_than: float = AGE_BOUND) -> list[Path]:
    """Return the unfinished files that `sweep_partials` would remove."""
    found = []
    latest = time.time() - older_than
    for path, owner in _left(store):
        with contextlib.suppress(OSError):
            touched = max(entry.lstat().st_mtime for entry in (path, *path.iterdir()))
            living = owner != NOBODY and judge(store.leases / owner) != "dead"
            is_done = store.path(path.name[5:69]).exists()
            if not living and (is_done or touched <= latest):
                found.append(path)
    return found


def _is_free(store: Store, path: Path, owner: str, lease: str) -> bool:
    """Return whether nobody writes to it: let go of, or its process is dead."""
    if owner == lease:
        return path not in _held
    return owner == NOBODY or judge(store.leases / owner) == "dead"


def _is_sound(folder: Path) -> bool:
    """Return whether it holds two plain files that have no other names."""
    try:
        found = [(folder / name).lstat() for name in ("data", "journal")]
    except OSError:
        return False
    return all(stat.S_ISREG(one.st_mode) and one.st_nlink == 1 for one in found)


def _left(store: Store, sha256: str | None = None) -> Iterator[tuple[Path, str]]:
    for path in sorted(store.staging.glob("part-*")):
        match = _NAME.fullmatch(path.name)
        if match is not None and sha256 in {None, match[1]} and not path.is_symlink():
            yield path, match[2]


def _name(staging: Path, sha256: str, owner: str) -> Path:
    return staging / f"part-{sha256}.{owner}.{secrets.token_hex(6)}"


def _rows(journal: int, item: Item) -> list[tuple[int, int, int]] | None:
    """Return the rows of a journal that make sense; None if it is not this item's."""
    if os.fstat(journal).st_size > _LONGEST_JOURNAL:
        return None
    data = b""
    while chunk := os.pread(journal, CHUNK, len(data)):
        data += chunk
    head, *lines = data.split(b"\n")
    if _parsed(head) != {"sha256": item.sha256, "size": item.size}:
        return None
    if lines and lines[-1]:
        os.ftruncate(journal, len(data) - len(lines[-1]))  # killed in the middle of a line
    rows = []
    for line in lines[:-1]:
        row = _parsed(line)
        match [row.get(key) for key in "sec"] if isinstance(row, dict) else []:
            case [int(start), int(end), int(crc)] if 0 <= start < end <= item.size:
                rows.append((start, end, crc))
            case _:
                continue
    return rows


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
