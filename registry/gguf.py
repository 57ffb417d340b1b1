"""A strict, pure reader of GGUF headers: bytes in, facts or one error type out.

Every count must be payable from the bytes that remain, so no header can make us allocate more
than it weighs; tensors must tile the data section exactly; names follow a grammar; arrays do not
nest. It runs before any native parser sees a file.

Format: `docs/gguf.md` of ggml; version 2 and 3, little-endian.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

from quantmint.errors import IntegrityError
from quantmint.registry.gguf_types import TENSOR_TYPES, UNQUANTIZED, TensorType

HEADER_LIMIT: Final = 256 << 20
_KEY: Final = re.compile(rb"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_TENSOR: Final = re.compile(rb"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_LONGEST_KEY: Final = 256
_LONGEST_TENSOR_NAME: Final = 63
_MOST_DIMENSIONS: Final = 4
_STRING: Final = 8
_ARRAY: Final = 9
_BOOL: Final = 7
_SCALARS: Final = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<B"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_LENGTH: Final = struct.Struct("<Q")
_START: Final = struct.Struct("<4sIQQ")


class GgufError(IntegrityError):
    """The file is no well-formed GGUF file."""


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
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            if size < _START.size:
                raise GgufError(f"it has {size} bytes: too short for a header")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                return parse(view, size)
    except GgufError as error:
        raise GgufError(f"{path.name} is no well-formed GGUF file: {error.what}") from None


def parse(data: mmap.mmap | bytes, size: int) -> Gguf:
    """Read a header out of `data`, the first bytes of a file of `size` bytes.

    Raises:
        GgufError: see `read`.
    """
    cursor = _Cursor(data, min(len(data), HEADER_LIMIT))
    magic, version, tensor_count, value_count = _START.unpack(cursor.take(_START.size))
    if magic != b"GGUF":
        raise GgufError(f"it starts with {magic!r} instead of b'GGUF'")
    if version not in {2, 3}:
        raise GgufError(f"version {version} is not 2 or 3 (or the file is big-endian)")
    values = _values(cursor, value_count)
    alignment = values.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment not in {1 << n for n in range(3, 17)}:
        raise GgufError(f"alignment {alignment!r} is no power of two from 8 to 65536")
    rows = _tensor_rows(cursor, tensor_count)
    data_offset = -(-cursor.at // alignment) * alignment
    if not rows and not cursor.at <= size <= data_offset:
        raise GgufError(f"the header ends at byte {cursor.at} and the file at byte {size}")
    tensors = _lay_out(rows, data_offset, alignment, size)
    return Gguf(version, values, tensors, alignment, data_offset, size)


class _Cursor:
    """A position in the header that never passes its end."""

    def __init__(self, data: mmap.mmap | bytes, end: int) -> None:
        self.data = data
        self.end = end
        self.at = 0

    def take(self, count: int) -> bytes:
        self.pay(count)
        start, self.at = self.at, self.at + count
        return self.data[start : self.at]

    def pay(self, count: int) -> None:
        if count > self.end - self.at:
            raise GgufError(f"the header ends inside a field at byte {self.at}")

    def length(self) -> int:
        return int(_LENGTH.unpack(self.take(8))[0])

    def string(self) -> bytes:
        return self.take(self.length())

    def text(self) -> str:
        raw = self.string()
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise GgufError(f"a text before byte {self.at} is no UTF-8") from None

    def number(self, kind: int) -> int:
        return int(_SCALARS[kind].unpack(self.take(_SCALARS[kind].size))[0])


def _values(cursor: _Cursor, count: int) -> dict[str, Any]:
    cursor.pay(13 * count)  # a key takes 8 bytes and one letter, a value 4 bytes of type
    values: dict[str, Any] = {}
    for _ in range(count):
        raw = cursor.string()
        if len(raw) > _LONGEST_KEY or _KEY.fullmatch(raw) is None:
            raise GgufError(f"key {raw[:60]!r} is outside the grammar")
        key = raw.decode("ascii")
        if key in values:
            raise GgufError(f"key {key!r} stands twice")
        values[key] = _value(cursor, cursor.number(4), key)
    return values


def _value(cursor: _Cursor, kind: int, key: str) -> Any:  # noqa: ANN401
    if kind == _STRING:
        return cursor.text()
    if kind == _ARRAY:
        return _array(cursor, key)
    if kind not in _SCALARS:
        raise GgufError(f"key {key!r} has the unknown type {kind}")
    value = _SCALARS[kind].unpack(cursor.take(_SCALARS[kind].size))[0]
    return _truth(value, key) if kind == _BOOL else value


def _array(cursor: _Cursor, key: str) -> tuple[Any, ...]:
    kind = cursor.number(4)
    count = cursor.length()
    if kind == _STRING:
        cursor.pay(8 * count)
        # Token pieces may be any bytes: a byte that is no UTF-8 is kept as a surrogate.
        return tuple(cursor.string().decode("utf-8", "surrogateescape") for _ in range(count))
    if kind not in _SCALARS:
        raise GgufError(f"key {key!r} is an array of the type {kind}, which is refused")
    scalar = _SCALARS[kind]
    cursor.pay(scalar.size * count)
    layout = struct.Struct(f"<{count}{scalar.format[1:]}")
    found = layout.unpack(cursor.take(layout.size))
    return tuple(_truth(value, key) for value in found) if kind == _BOOL else found


def _truth(value: int, key: str) -> bool:
    if value not in {0, 1}:
        raise GgufError(f"key {key!r} holds a truth value that is neither 0 nor 1")
    return bool(value)


def _tensor_rows(
    cursor: _Cursor, count: int
) -> list[tuple[str, TensorType, tuple[int, ...], int, int]]:
    cursor.pay(33 * count)  # name 9, dimensions 4 + 8, type 4, offset 8
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
        kind = TENSOR_TYPES.get(cursor.number(4))
        if kind is None:
            raise GgufError(f"tensor {name!r} has an unknown type")
        rows.append((name, kind, shape, cursor.length(), _tensor_size(name, kind, shape)))
    return rows


def _shape(cursor: _Cursor, name: str) -> tuple[int, ...]:
    dimensions = cursor.number(4)
    if not 1 <= dimensions <= _MOST_DIMENSIONS:
        raise GgufError(f"tensor {name!r} has {dimensions} dimensions")
    shape = tuple(cursor.length() for _ in range(dimensions))
    if min(shape) < 1 or prod(shape) >= 1 << 48:
        raise GgufError(f"tensor {name!r} has the impossible shape {shape}")
    return shape


def _tensor_size(name: str, kind: TensorType, shape: tuple[int, ...]) -> int:
    if shape[0] % kind.block:
        raise GgufError(f"tensor {name!r}: rows of {shape[0]} are no whole {kind.name} blocks")
    return prod(shape) // kind.block * kind.size


def _lay_out(
    rows: list[tuple[str, TensorType, tuple[int, ...], int, int]],
    data_offset: int,
    alignment: int,
    file_size: int,
) -> tuple[Tensor, ...]:
    """Check that the tensors, in order of offset, fill the data section without gap or overlap."""
    expected = 0
    for name, _, _, offset, size in sorted(rows, key=lambda row: row[3]):
        if offset != expected:
            raise GgufError(f"tensor {name!r} starts at {offset} of the data, not at {expected}")
        expected = offset + -(-size // alignment) * alignment
    last = data_offset + (max((o + s for _, _, _, o, s in rows), default=0))
    if rows and not last <= file_size <= data_offset + expected:
        raise GgufError(
            f"the tensors end at byte {last} and the file at byte {file_size}: "
            + ("it is truncated" if file_size < last else "bytes are left over")
        )
    return tuple(
        Tensor(name, kind, shape, data_offset + offset, size)
        for name, kind, shape, offset, size in rows
    )
