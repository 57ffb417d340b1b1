"""The table of a GGUF file's tensors: where each one's bytes lie, and their digest.

With it a pull takes the tensors that it has already from another file, and fetches the rest.
Offsets and sizes are in bytes, offsets from the start of the file; bytes between tensors are
padding, zero in every file that llama.cpp writes.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from quantmint.errors import IntegrityError
from quantmint.registry import gguf
from quantmint.registry.manifest.codec import INDEX_LIMIT, from_bytes, to_bytes
from quantmint.registry.manifest.types import Bytes, FilePath, Sha256, Signed
from quantmint.watching import note

MOST_TENSORS: Final = 1 << 16
_CHUNK: Final = 1 << 22


class TensorRow(Signed):
    """One tensor: its name and type as the header has them, its place, its digest."""

    name: Annotated[
        str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$", max_length=63)
    ]
    type: Annotated[str, StringConstraints(pattern=r"^[A-Z0-9]+(_[A-Z0-9]+)*$", max_length=16)]
    offset: Bytes
    size: Bytes
    sha256: Sha256


class TensorTable(Signed):
    """All tensors of one file, in the order of their places; `header_*` is what comes before."""

    format: Literal["quantmint.tensors/1"]
    file: FilePath
    size: Bytes
    sha256: Sha256
    header_size: Bytes
    header_sha256: Sha256
    tensors: tuple[TensorRow, ...] = Field(max_length=MOST_TENSORS)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        at = self.header_size
        for row in self.tensors:
            if row.offset < at:
                raise ValueError(f"tensor {row.name!r} overlaps what is before it")
            at = row.offset + row.size
        if at > self.size:
            raise ValueError("the tensors reach past the end of the file")
        if len({row.name for row in self.tensors}) != len(self.tensors):
            raise ValueError("a tensor stands twice")
        return self


def make_table(path: Path, file: str, sha256: str) -> TensorTable:
    """Read a GGUF file and digest its header and each of its tensors.

    Args:
        path: where the file is; it must not change meanwhile, as an object of the store.
        file: its name in the release.
        sha256: the digest of the whole file, known already.

    Raises:
        GgufError: it is not well-formed.
    """
    header = gguf.read(path)
    with path.open("rb", buffering=0) as reader:
        rows = []
        for tensor in sorted(header.tensors, key=lambda tensor: tensor.offset):
            digest = digest_range(reader.fileno(), tensor.offset, tensor.size)
            rows.append(
                TensorRow(name=tensor.name, type=tensor.type.name, offset=tensor.offset,
                          size=tensor.size, sha256=digest)
            )  # fmt: skip
            done = min(tensor.offset + tensor.size, header.size)
            note("hashing tensors of", file, done, header.size)
        start = min(header.data_offset, header.size)
        return TensorTable(
            format="quantmint.tensors/1",
            file=file,
            size=header.size,
            sha256=sha256,
            header_size=start,
            header_sha256=digest_range(reader.fileno(), 0, start),
            tensors=tuple(rows),
        )


def check_table(table: TensorTable, path: Path, *, deep: bool = False) -> None:
    """Compare a table with the file that it claims to describe.

    The digest of the whole file is somebody else's to check (`verify_file`). With `deep` the
    header and every tensor are hashed too; else their names, types, places and sizes are compared.

    Raises:
        IntegrityError: they differ.
    """
    header = gguf.read(path)
    found = [
        (t.name, t.type.name, t.offset, t.size)
        for t in sorted(header.tensors, key=lambda tensor: tensor.offset)
    ]
    told = [(row.name, row.type, row.offset, row.size) for row in table.tensors]
    starts = min(header.data_offset, header.size)
    if (found, header.size, starts) != (told, table.size, table.header_size):
        raise _differs(table, "it lists other tensors than the file's header")
    if deep and make_table(path, table.file, table.sha256) != table:
        raise _differs(table, "a tensor's bytes have another sha256")


def read_table(data: bytes, *, what: str) -> TensorTable:
    """Read a table.

    Raises:
        IntegrityError: larger than 16 MiB, not canonical, or its rows overlap.
    """
    return from_bytes(TensorTable, data, what=what, limit=INDEX_LIMIT)


def table_bytes(table: TensorTable) -> bytes:
    """Return the table as a file of the release."""
    return to_bytes(table)


def digest_range(handle: int, offset: int, size: int) -> str:
    """Return the sha256 of `size` bytes at `offset` of an open file.

    Raises:
        IntegrityError: the file ends before.
    """
    digest = hashlib.sha256()
    while size > 0:
        chunk = os.pread(handle, min(size, _CHUNK), offset)
        if not chunk:
            raise IntegrityError(f"the file ends at byte {offset}, inside a tensor")
        digest.update(chunk)
        offset, size = offset + len(chunk), size - len(chunk)
    return digest.hexdigest()


def _differs(table: TensorTable, why: str) -> IntegrityError:
    return IntegrityError(
        f"the table of tensors of {table.file} is not its own: {why}",
        mend="fetch the release again; if it stays so, tell its publisher",
    )
