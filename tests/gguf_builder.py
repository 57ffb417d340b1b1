"""Writes GGUF files byte by byte, well-formed or not, as a test wants them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

TEXT, ARRAY = 8, 9
FORMATS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "B",
    10: "Q",
    11: "q",
    12: "d",
}


def text(value: bytes | str) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def scalar(kind: int, value: float) -> bytes:
    return struct.pack("<I" + FORMATS[kind], kind, value)


def string(value: bytes | str) -> bytes:
    return struct.pack("<I", TEXT) + text(value)


def array(kind: int, items: bytes, count: int) -> bytes:
    return struct.pack("<IIQ", ARRAY, kind, count) + items


@dataclass
class Row:
    """One tensor: name, shape with the row length first, type number, offset and size in bytes."""

    name: bytes | str
    shape: tuple[int, ...]
    kind: int
    offset: int
    size: int

    def packed(self) -> bytes:
        shape = struct.pack(f"<I{len(self.shape)}Q", len(self.shape), *self.shape)
        return text(self.name) + shape + struct.pack("<IQ", self.kind, self.offset)


@dataclass
class File:
    """A file in parts. What is None is computed, as a well-formed file has it."""

    values: list[tuple[bytes | str, bytes]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    magic: bytes = b"GGUF"
    version: int = 3
    tensor_count: int | None = None
    value_count: int | None = None
    alignment: int = 32
    data: bytes | None = None
    order: str = "<"

    def header(self) -> bytes:
        tensors = len(self.rows) if self.tensor_count is None else self.tensor_count
        values = len(self.values) if self.value_count is None else self.value_count
        start = self.magic + struct.pack(self.order + "IQQ", self.version, tensors, values)
        pairs = b"".join(text(key) + value for key, value in self.values)
        return start + pairs + b"".join(row.packed() for row in self.rows)

    def build(self) -> bytes:
        head = self.header()
        head += b"\0" * (-len(head) % self.alignment)
        if self.data is not None:
            return head + self.data
        end = max((row.offset + row.size for row in self.rows), default=0)
        assert end < 1 << 20, "give the data of a file with a wild offset"
        return head + bytes(i % 251 for i in range(end))


def sample() -> File:
    """A small well-formed file with every kind of value and three tensors."""
    scalars = {f"test.kind_{kind}": scalar(kind, 1) for kind in FORMATS}
    values: list[tuple[bytes | str, bytes]] = [
        ("general.architecture", string("phi3")),
        ("general.name", string("naïve")),
        *scalars.items(),
        ("tokenizer.ggml.tokens", array(TEXT, text("a") + text(b"\xff\xfe") + text(""), 3)),
        ("tokenizer.ggml.scores", array(6, struct.pack("<3f", 0, -1, 2), 3)),
        ("test.flags", array(7, b"\0\1", 2)),
    ]
    rows = [
        Row("token_embd.weight", (64, 2), 8, 0, 136),  # Q8_0: 4 blocks of 34 bytes
        Row("blk.0.attn.weight", (32, 3), 1, 160, 192),  # F16
        Row("output_norm.weight", (5,), 0, 352, 20),  # F32
    ]
    return File(values, rows)
