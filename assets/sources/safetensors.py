"""Checking safetensors files by their headers, and telling pickles by their bytes.

Format: 8 bytes of header length, a JSON object of tensors with `data_offsets`, then the data,
which the tensors tile without gap or overlap (the safetensors specification).
"""

from __future__ import annotations

import json
import struct
from math import prod
from pathlib import Path
from typing import Any, Final

from quantmint.errors import SourceError

HEADER_LIMIT: Final = 100_000_000
BITS: Final = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8,
    "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8,
}  # fmt: skip
PICKLE_SUFFIXES: Final = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
MEND: Final = "fetch the file again; it must be the one that the checkpoint's author published"


def looks_like_pickle(path: Path) -> bool:
    """Return whether the bytes are a pickle, or a zip archive such as torch.save writes."""
    with path.open("rb") as file:
        start = file.read(9)
    # A safetensors header of 640 bytes, say, starts like a pickle; its ninth byte tells them apart.
    if start[8:] == b"{":
        return False
    return (start[:1] == b"\x80" and start[1:2] in {b"\x02", b"\x03", b"\x04", b"\x05"}) or (
        start[:4] == b"PK\x03\x04"
    )


def check(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return `{tensor: (dtype, shape)}` of a whole, well-formed file.

    Raises:
        SourceError: it is truncated, damaged, or is no safetensors file at all.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(HEADER_LIMIT, size - 8):
            raise _damaged(path, "its header is missing or cut off")
        raw = file.read(length)
    try:
        header = json.loads(raw)
        rows = sorted(
            (_row(name, row) for name, row in header.items() if name != "__metadata__"),
            key=lambda row: row[3:],  # an empty tensor stands before the one at its place
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"its header can't be read ({error})") from None
    _check_tiling(path, rows, size - 8 - length)
    return {name: (dtype, shape) for name, dtype, shape, _, _ in rows}


def _row(name: str, row: Any) -> tuple[str, str, tuple[int, ...], int, int]:  # noqa: ANN401
    dtype, shape = row["dtype"], tuple(row["shape"])
    begin, end = row["data_offsets"]
    if any(type(n) is not int or n < 0 for n in (*shape, begin, end)):
        raise ValueError(f"tensor {name!r} has a shape or a place that is no whole number")
    if end - begin != prod(shape) * BITS[dtype] // 8:
        raise ValueError(f"tensor {name!r} has a length that is not its shape's")
    return name, dtype, shape, begin, end


def _check_tiling(
    path: Path, rows: list[tuple[str, str, tuple[int, ...], int, int]], data: int
) -> None:
    expected = 0
    for name, _, _, begin, end in rows:
        if begin != expected:
            raise _damaged(path, f"tensor {name!r} starts at {begin}, not at {expected}")
        expected = end
    if expected != data:
        how = "it is truncated" if data < expected else "bytes are left over"
        raise _damaged(path, f"its tensors take {expected} bytes and {data} are there: {how}")


def _damaged(path: Path, how: str) -> SourceError:
    return SourceError(f"{path.name} is no whole safetensors file: {how}", mend=MEND)
