"""The values of a GGUF header: scalars, texts, and arrays that cost no more than they weigh.

An array of numbers becomes a read-only `memoryview`, an array of texts a `Texts`: neither makes
one Python object per item before somebody asks for it.
"""

from __future__ import annotations

import mmap
import re
import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any, Final, overload

from quantmint.errors import IntegrityError

HEADER_LIMIT: Final = 256 << 20
MOST_KEYS: Final = 1 << 16
MOST_TEXTS: Final = 1 << 23
LONGEST_TEXT: Final = 16 << 20
ALIGNMENT: Final = "general.alignment"
_KEY: Final = re.compile(rb"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_LONGEST_KEY: Final = 256
_UINT32: Final = 4
_BOOL: Final = 7
_TEXT: Final = 8
_ARRAY: Final = 9
# GGUF's number of a type, and the letter by which `struct` and `array` know it.
_LETTERS: Final = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_SCALARS: Final = {kind: struct.Struct("<" + letter) for kind, letter in _LETTERS.items()}
_LENGTH: Final = struct.Struct("<Q")

Bytes = mmap.mmap | bytes


class GgufError(IntegrityError):
    """The file is no well-formed GGUF file."""


class ShortError(GgufError):
    """Nothing is wrong so far with the first bytes of a file: the header goes on behind them.

    `needed` bytes from the file's start are what reading on takes at least.
    """

    needed = 0


class Texts(Sequence[str]):
    """The texts of an array, decoded when one of them is first asked for.

    Token pieces may be any bytes: a byte that is no UTF-8 is kept as a surrogate
    (`str.encode("utf-8", "surrogateescape")` gives the bytes back).
    """

    __slots__ = ("_count", "_items", "_raw")

    def __init__(self, raw: bytes, count: int) -> None:
        """Take `count` texts, each with its length in 8 bytes before it: `raw` was checked."""
        self._raw = raw
        self._count = count
        self._items: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        if self._items is None:
            self._items = tuple(self)
        return self._items[index]

    def __iter__(self) -> Iterator[str]:
        at = 0
        for _ in range(self._count):
            end = at + 8 + _LENGTH.unpack_from(self._raw, at)[0]
            yield self._raw[at + 8 : end].decode("utf-8", "surrogateescape")
            at = end

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Texts):
            return self._raw == other._raw
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self._raw)

    def __repr__(self) -> str:
        return f"Texts({self._count} texts)"


class Cursor:
    """A position in the header that never passes its end.

    Every method raises `GgufError` when the bytes that are left do not pay for what it takes:
    `ShortError` where only those that are here do not, and those of the whole file could.
    """

    def __init__(self, data: Bytes, size: int) -> None:
        """Read `data`, the first bytes of a file of `size` bytes."""
        self.data = data
        self.last = min(size, HEADER_LIMIT)
        self.end = min(len(data), self.last)
        self.at = 0
        self.texts_left = MOST_TEXTS

    def pay(self, count: int, what: str = "a field") -> None:
        """Refuse unless `count` more bytes, which `what` takes, are there."""
        if count > self.end - self.at:
            raise self.exhausted(what, self.at + count)

    def exhausted(self, what: str, needed: int) -> GgufError:
        """Return the error for what goes on past the end, and takes `needed` bytes at least."""
        if needed <= self.last:
            short = ShortError(f"the bytes that are here end inside {what} at byte {self.at}")
            short.needed = needed
            return short
        if self.last == HEADER_LIMIT:
            return GgufError(f"its header is longer than {HEADER_LIMIT >> 20} MiB")
        return GgufError(f"the file ends inside {what} at byte {self.at}")

    def take(self, count: int, what: str = "a field") -> bytes:
        """Return the next `count` bytes."""
        self.pay(count, what)
        start, self.at = self.at, self.at + count
        return self.data[start : self.at]

    def length(self) -> int:
        """Return the next unsigned 64-bit number."""
        return int(_LENGTH.unpack(self.take(8))[0])

    def string(self) -> bytes:
        """Return the next string's bytes."""
        count = self.length()
        return self.take(count, f"a string of {count} bytes")

    def number(self, kind: int) -> int:
        """Return the next scalar of GGUF's type `kind`, which must be one of the integers."""
        return int(_SCALARS[kind].unpack(self.take(_SCALARS[kind].size))[0])

    def texts(self, count: int) -> Texts:
        """Walk over `count` strings without making an object of any."""
        what = f"an array of {count} texts"
        self.pay(8 * count, what)
        self.texts_left -= count
        if self.texts_left < 0:
            raise GgufError(f"its arrays hold more than {MOST_TEXTS} texts")
        data, at, unpack = self.data, self.at, _LENGTH.unpack_from
        try:
            for _ in repeat(None, count):
                (size,) = unpack(data, at)
                at += size + 8
        except (struct.error, OverflowError):
            raise self.exhausted(what, at + 8) from None
        if at > self.end:
            raise self.exhausted(what, at)
        return Texts(self.take(at - self.at), count)


def read_values(cursor: Cursor, count: int) -> dict[str, Any]:
    """Read `count` keys and their values.

    A value is a `bool`, `int`, `float` or `str`, a `Texts`, or a read-only `memoryview` of
    numbers or truth values.

    Raises:
        GgufError: a key is outside the grammar or stands twice, or a value is not what it says.
    """
    # A key takes 8 bytes and one letter, a value 4 bytes of type.
    cursor.pay(13 * count, f"its {count} keys")
    if count > MOST_KEYS:
        raise GgufError(f"it has {count} keys, more than {MOST_KEYS}")
    values: dict[str, Any] = {}
    for _ in range(count):
        raw = cursor.string()
        if len(raw) > _LONGEST_KEY or _KEY.fullmatch(raw) is None:
            raise GgufError(f"key {raw[:60]!r} is outside the grammar")
        key = raw.decode("ascii")
        if key in values:
            raise GgufError(f"key {key!r} stands twice")
        kind = cursor.number(_UINT32)
        if key == ALIGNMENT and kind != _UINT32:
            raise GgufError(f"key {key!r} has the type {kind} instead of {_UINT32}")
        values[key] = _value(cursor, kind, key)
    return values


def _value(cursor: Cursor, kind: int, key: str) -> bool | float | str | Texts | memoryview[Any]:
    if kind == _TEXT:
        return _text(cursor, key)
    if kind == _ARRAY:
        return _array(cursor, key)
    if kind not in _SCALARS:
        raise GgufError(f"key {key!r} has the unknown type {kind}")
    value: float = _SCALARS[kind].unpack(cursor.take(_SCALARS[kind].size))[0]
    if kind != _BOOL:
        return value
    if value not in {0, 1}:
        raise GgufError(f"key {key!r} holds a truth value that is neither 0 nor 1")
    return bool(value)


def _text(cursor: Cursor, key: str) -> str:
    raw = cursor.string()
    if len(raw) > LONGEST_TEXT:
        raise GgufError(f"key {key!r} holds a text of {len(raw)} bytes, more than {LONGEST_TEXT}")
    if b"\0" in raw:  # readers in C would see another, shorter text than we do
        raise GgufError(f"key {key!r} holds a text with a zero byte")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise GgufError(f"key {key!r} holds a text that is no UTF-8") from None


def _array(cursor: Cursor, key: str) -> Texts | memoryview[Any]:
    kind = cursor.number(_UINT32)
    count = cursor.length()
    if kind == _TEXT:
        return cursor.texts(count)
    if kind not in _SCALARS:
        raise GgufError(f"key {key!r} is an array of the type {kind}, which is refused")
    numbers: array[Any] = array(_LETTERS[kind])
    raw = cursor.take(_SCALARS[kind].size * count, f"an array of {count} numbers")
    if kind == _BOOL:
        if raw.translate(None, b"\0\1"):
            raise GgufError(f"key {key!r} holds a truth value that is neither 0 nor 1")
        return memoryview(raw).cast("?")
    numbers.frombytes(raw)
    if sys.byteorder == "big":
        numbers.byteswap()
    return memoryview(numbers).toreadonly()
