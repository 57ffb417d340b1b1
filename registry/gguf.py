"""A strict, pure reader of GGUF headers: bytes in, facts or one error type out.

Every count must be payable from the bytes that remain, so no header can make us allocate more
than it weighs; tensors must tile the data section exactly, in the order of the header; names
follow a grammar; arrays do not nest. It runs before any native parser sees a file.

Format: `docs/gguf.md` of ggml; version 2 and 3, little-endian. What is refused that the format
allows, and why: `docs/gguf-gate.md`.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Final

from quantmint.errors import UserError
from quantmint.registry.gguf_types import REMOVED, TENSOR_TYPES, UNQUANTIZED, TensorType
from quantmint.registry.gguf_values import (
    ALIGNMENT,
    HEADER_LIMIT,
    Bytes,
    Cursor,
    GgufError,
    ShortError,
    Texts,
    read_values,
)

__all__ = ["Gguf", "GgufError", "ShortError", "Tensor", "Texts", "parse", "read"]

MOST_TENSORS: Final = 1 << 16
_TENSOR: Final = re.compile(rb"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_LONGEST_TENSOR_NAME: Final = 63
_MOST_DIMENSIONS: Final = 4
_UINT32: Final = 4
_POINTER: Final = b"version https://git-lfs"
_START: Final = struct.Struct("<4sIQQ")
_MEND: Final = "fetch or make the file again; `quantmint inspect FILE` checks it"


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: `shape` counts weights with the row length first; `offset` is in the file."""

    name: str
    type: TensorType
    shape: tuple[int, ...]
    offset: int
    size: int

    @property
    def weights(self) -> int:
        """The number of weights."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Gguf:
    """What a header says. `data_offset` and `size` are in bytes from the start of the file."""

    version: int
    values: Mapping[str, Any]
    tensors: tuple[Tensor, ...]
    alignment: int
    data_offset: int
    size: int

    @property
    def architecture(self) -> str:
        """`general.architecture`, or an empty string."""
        value = self.values.get("general.architecture", "")
        return value if isinstance(value, str) else ""

    @property
    def weights(self) -> int:
        """Weights of all tensors together."""
        return sum(tensor.weights for tensor in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        """Bits of the data section per weight."""
        return 8 * sum(t.size for t in self.tensors) / self.weights if self.weights else 0.0

    def type_table(self) -> dict[str, tuple[int, int]]:
        """Return `{tensor type: (tensors, bytes)}`, largest share of bytes first."""
        table: dict[str, tuple[int, int]] = {}
        for tensor in self.tensors:
            count, size = table.get(tensor.type.name, (0, 0))
            table[tensor.type.name] = (count + 1, size + tensor.size)
        return dict(sorted(table.items(), key=lambda row: -row[1][1]))

    @property
    def is_quantized(self) -> bool:
        """Whether any tensor is stored in blocks."""
        return any(tensor.type.name not in UNQUANTIZED for tensor in self.tensors)


def read(path: Path) -> Gguf:
    """Read the header of the file at `path`; the data section is not touched.

    Raises:
        GgufError: the file is not well-formed, is truncated, or has bytes to spare.
        UserError: it can't be read.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < _START.size:
                raise GgufError(f"it has {size} bytes: too short for a header")
            with _view(file, size) as view:
                return parse(view, size)
    except OSError as error:
        raise UserError(
            f"{path} can't be read: {error.strerror or error}", mend=f"ls -l {path}"
        ) from error
    except GgufError as error:
        what = f"{path.name} is no well-formed GGUF file: {error.what}"
        raise GgufError(what, mend=_MEND) from None


@contextlib.contextmanager
def _view(file: BinaryIO, size: int) -> Iterator[Bytes]:
    """Give the file's bytes: mapped, or read where its file system can't map files."""
    try:
        view = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    except OSError:
        yield file.read(HEADER_LIMIT)
        return
    with view:
        yield view


def parse(data: Bytes, size: int) -> Gguf:
    """Read a header out of `data`, the first bytes of a file of `size` bytes.

    Raises:
        GgufError: see `read`; `ShortError` where the header goes on behind `data`.
    """
    cursor = Cursor(data, size)
    magic, version, tensor_count, value_count = _START.unpack(cursor.take(_START.size))
    if magic != b"GGUF" and data[: len(_POINTER)] == _POINTER:
        raise GgufError("it is a Git LFS pointer, and the file that it stands for was not fetched")
    if magic != b"GGUF":
        raise GgufError(f"it starts with {magic!r} instead of b'GGUF'")
    if version not in {2, 3}:
        big = version and not version & 0xFFFF
        raise GgufError("it is big-endian" if big else f"version {version} is neither 2 nor 3")
    values = read_values(cursor, value_count)
    alignment = values.get(ALIGNMENT, 32)
    if alignment not in {1 << n for n in range(3, 17)}:
        raise GgufError(f"alignment {alignment} is no power of two from 8 to 65536")
    rows = _tensor_rows(cursor, tensor_count)
    data_offset = -(-cursor.at // alignment) * alignment
    if not rows and not cursor.at <= size <= data_offset:
        raise GgufError(f"the header ends at byte {cursor.at} and the file at byte {size}")
    tensors = _lay_out(rows, data_offset, alignment, size)
    return Gguf(version, values, tensors, alignment, data_offset, size)


_Row = tuple[str, TensorType, tuple[int, ...], int, int]


def _tensor_rows(cursor: Cursor, count: int) -> list[_Row]:
    # A name takes 9 bytes at least, the shape 4, the type 4, the offset 8.
    cursor.pay(25 * count, f"its {count} tensors")
    if count > MOST_TENSORS:
        raise GgufError(f"it has {count} tensors, more than {MOST_TENSORS}")
    rows = []
    seen: set[bytes] = set()
    for _ in range(count):
        raw = cursor.string()
        if len(raw) > _LONGEST_TENSOR_NAME or _TENSOR.fullmatch(raw) is None:
            raise GgufError(f"tensor name {raw[:70]!r} is outside the grammar")
        if raw in seen:
            raise GgufError(f"tensor {raw.decode()!r} stands twice")
        seen.add(raw)
        name = raw.decode("ascii")
        shape = _shape(cursor, name)
        number = cursor.number(_UINT32)
        kind = TENSOR_TYPES.get(number)
        if kind is None:
            gone = REMOVED.get(number)
            which = f"type {gone}, which ggml gave up" if gone else f"unknown type {number}"
            raise GgufError(f"tensor {name!r} has the {which}")
        rows.append((name, kind, shape, cursor.length(), _tensor_size(name, kind, shape)))
    return rows


def _shape(cursor: Cursor, name: str) -> tuple[int, ...]:
    dimensions = cursor.number(_UINT32)
    if dimensions > _MOST_DIMENSIONS:
        raise GgufError(f"tensor {name!r} has {dimensions} dimensions")
    # A scalar has none; ggml makes every tensor's shape whole with ones.
    shape = tuple(cursor.length() for _ in range(dimensions)) or (1,)
    if min(shape) < 1 or prod(shape) >= 1 << 48:
        raise GgufError(f"tensor {name!r} has the impossible shape {shape}")
    return shape


def _tensor_size(name: str, kind: TensorType, shape: tuple[int, ...]) -> int:
    if shape[0] % kind.block:
        raise GgufError(f"tensor {name!r}: rows of {shape[0]} are no whole {kind.name} blocks")
    return prod(shape) // kind.block * kind.size


def _lay_out(
    rows: list[_Row], data_offset: int, alignment: int, file_size: int
) -> tuple[Tensor, ...]:
    """Check that the tensors, in order, fill the data section without gap or overlap.

    The padding after the last tensor may be missing: some writers pad before each tensor.
    """
    expected = last = 0
    for name, _, _, offset, size in rows:
        if offset != expected:
            raise GgufError(f"tensor {name!r} starts at {offset} of the data, not at {expected}")
        last = offset + size
        expected = -(-last // alignment) * alignment
    last += data_offset
    if rows and not last <= file_size <= data_offset + expected:
        raise GgufError(
            f"the tensors end at byte {last} and the file at byte {file_size}: "
            + ("it is truncated" if file_size < last else "bytes are left over")
        )
    return tuple(
        Tensor(name, kind, shape, data_offset + offset, size)
        for name, kind, shape, offset, size in rows
    )
