"""Which bytes of a wanted GGUF file are on this machine, by the digests of its tensors.

A table of tensors (`tensors.TensorTable`) names each tensor's place and sha256, so a tensor of any
other variant or release with the same digest is the same bytes, wherever it lies there. What the
tables say is checked by the digest of the whole file; if that differs, each piece is hashed.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from quantmint.errors import IntegrityError
from quantmint.registry.tensors import TensorTable, digest_range, make_table
from quantmint.registry.transfer.model import Item, LocalFile
from quantmint.registry.transfer.partial import Partial
from quantmint.registry.transfer.ranges import Range, total, union, without

# Two requests cost more than the bytes between them.
NEAR: Final = 256 << 10
_PADDING: Final = 4096
_PIECE: Final = 64 << 20
_CANT_SHARE: Final = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF}


@dataclass(frozen=True, slots=True)
class Copy:
    """Bytes that are to be taken from `path` at `offset`, and belong to `start` of the file."""

    start: int
    size: int
    path: Path
    offset: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How to put a file together: what is copied, what is padding, what has to be fetched."""

    copies: tuple[Copy, ...]
    zeros: tuple[Range, ...]
    fetch: tuple[Range, ...]

    @property
    def saved(self) -> int:
        """How many bytes need not be fetched."""
        return sum(copy.size for copy in self.copies) + total(self.zeros)


NOTHING: Final = Plan((), (), ())


def local_file(path: Path, sha256: str) -> LocalFile:
    """Return a local GGUF file that came without a table: its tensors are hashed now.

    Raises:
        GgufError: it is not well-formed.
    """
    return LocalFile(path, make_table(path, f"{sha256}.gguf", sha256))


def plan(table: TensorTable, local: Sequence[LocalFile], *, near: int = NEAR) -> Plan:
    """Decide where each piece of a file comes from.

    The header is always fetched. Padding before a tensor counts with what it lies between: it is
    fetched if both neighbours are, else it is zeros. Ranges less than `near` bytes apart are
    fetched as one.
    """
    places = {
        (row.sha256, row.size): (one.path, row.offset)
        for one in reversed(local)
        for row in one.table.tensors
    }
    wanted: list[Range] = [(0, table.header_size)]
    copies = []
    for row in table.tensors:
        found = places.get((row.sha256, row.size))
        if found is None:
            wanted.append((row.offset, row.offset + row.size))
        elif row.size:
            copies.append(Copy(row.offset, row.size, *found))
    listed = [(0, table.header_size)] + [(r.offset, r.offset + r.size) for r in table.tensors]
    gaps = without([(0, table.size)], listed)
    fetch = union([*wanted, *(gap for gap in gaps if gap[1] - gap[0] > _PADDING)], near=near)
    kept = tuple(copy for copy in copies if without([_range(copy)], fetch))
    covered = [*fetch, *(_range(copy) for copy in kept)]
    return Plan(kept, tuple(without([(0, table.size)], covered)), tuple(fetch))


def assemble(partial: Partial, found: Plan) -> list[Range]:
    """Copy into an unfinished file what is here; return the ranges that are there now.

    Blocks are shared where the file system can. A file that is gone or too short is left out.

    Raises:
        OSError: the disk is full, or it failed.
    """
    there: list[Range] = []
    done = union(partial.done)
    missing = (copy for copy in found.copies if without([_range(copy)], done))
    there += [_range(copy) for copy in missing if _copy(copy, partial.fd)]
    for start, end in found.zeros:
        partial.write(bytes(end - start), start)
        there.append((start, end))
    return there


def wrong_pieces(item: Item, path: Path) -> list[Range]:
    """Return where a file of the right size differs from its table: tensors, header, padding.

    Padding has no digest of its own: it is to blame if nothing else is.
    """
    table = item.table
    assert table is not None
    pieces = [(0, table.header_size, table.header_sha256)]
    pieces += [(row.offset, row.offset + row.size, row.sha256) for row in table.tensors]
    wrong: list[Range] = []
    with path.open("rb", buffering=0) as file:
        for start, end, sha256 in pieces:
            if end > start and _digest(file.fileno(), start, end - start) != sha256:
                wrong.append((start, end))
    padding = without([(0, table.size)], [(start, end) for start, end, _ in pieces])
    return union(wrong or padding, near=NEAR)


def _digest(handle: int, start: int, size: int) -> str | None:
    with contextlib.suppress(IntegrityError):
        return digest_range(handle, start, size)
    return None


def _range(copy: Copy) -> Range:
    return copy.start, copy.start + copy.size


def _copy(copy: Copy, target: int) -> bool:
    try:
        source = os.open(copy.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        at = 0
        while at < copy.size:
            count = _move(source, target, (copy.offset + at, copy.start + at), copy.size - at)
            if count == 0:
                return False
            at += count
    finally:
        os.close(source)
    return True


def _move(source: int, target: int, places: Range, left: int) -> int:
    """Copy some bytes inside the kernel, or through memory where it can't."""
    try:
        return os.copy_file_range(source, target, min(left, _PIECE), *places)
    except OSError as error:
        if error.errno not in _CANT_SHARE:
            raise
    data = os.pread(source, min(left, 1 << 20), places[0])
    return os.pwrite(target, data, places[1]) if data else 0
