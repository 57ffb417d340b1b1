"""The Hub's chunk store (xet): what the client uploads, taken apart and served again.

A xorb is a row of chunks, each behind a header of 8 bytes: version, length on disk (24 bits),
scheme (0 plain, 1 LZ4, 2 LZ4 of bytes grouped by their place modulo 4), length (24 bits).  A shard
says of which chunks a file is made: records of 48 bytes behind a header of 48.
"""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass
from typing import Any, Final

from .content import Entry

RECORD: Final = 48
HAS_METADATA, HAS_VERIFICATION = 1 << 30, 1 << 31
BOOKEND: Final = b"\xff" * 32


class BadShardError(Exception):
    """A shard that names chunks which are not here, or whose file has another digest."""


@dataclass(frozen=True)
class Chunk:
    """One chunk: where it lies in its xorb, and its bytes."""

    start: int
    end: int
    data: bytes


@dataclass(frozen=True)
class Xorb:
    """A xorb as it was uploaded."""

    data: bytes
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True)
class Term:
    """A piece of a file: chunks `first` to `last` (not included) of a xorb."""

    xorb: str
    size: int
    first: int
    last: int


class Cas:
    """All xorbs, and of what terms each file is made."""

    def __init__(self, large: dict[str, Entry], token: str) -> None:
        self.large, self.token = large, token
        self.xorbs: dict[str, Xorb] = {}
        self.files: dict[str, tuple[Term, ...]] = {}

    def put_xorb(self, name: str, data: bytes) -> bool:
        is_new = name not in self.xorbs
        self.xorbs[name] = Xorb(data, tuple(_chunks(data)))
        return is_new

    def put_shard(self, data: bytes) -> None:
        """Keep every file of a shard, whole and by its sha256.

        Raises:
            BadShardError: it names a xorb that is not here.
        """
        for file_id, terms, sha256 in _files(data):
            for term in terms:
                if term.xorb not in self.xorbs:
                    raise BadShardError(f"there is no xorb {term.xorb}")
            whole = b"".join(self._bytes(term) for term in terms)
            found = hashlib.sha256(whole).hexdigest()
            if sha256 not in {None, found}:
                raise BadShardError(f"the file has the sha256 {found}, not {sha256}")
            self.files[file_id] = terms
            self.large[found] = Entry(whole, is_lfs=True, xet=file_id)

    def offer(self, data: bytes, *, chunk: int = 10_007, row: int = 7) -> Entry:
        """Keep a file as if it had been uploaded: plain chunks, and so many of them in a xorb."""
        terms = []
        for at in range(0, len(data), chunk * row):
            piece = data[at : at + chunk * row]
            chunks = [piece[start : start + chunk] for start in range(0, len(piece), chunk)]
            xorb = b"".join(_packed(one) for one in chunks)
            name = hashlib.sha256(xorb).hexdigest()
            self.put_xorb(name, xorb)
            terms.append(Term(name, len(piece), 0, len(chunks)))
        file_id = hashlib.sha256(b"file" + data).hexdigest()
        self.files[file_id] = tuple(terms)
        return Entry(data, is_lfs=True, xet=file_id)

    def reconstruct(
        self, file_id: str, asked: str | None, url: str, version: str
    ) -> dict[str, Any] | None:
        """Return how to put a range of a file together; None if it lies behind the file's end."""
        terms = self.files[file_id]
        total = sum(term.size for term in terms)
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", asked or "")
        start = int(found[1]) if found else 0
        end = min(int(found[2]) + 1, total) if found and found[2] else total
        if start >= total:
            return None
        used: list[Term] = []
        at, skip = 0, 0
        for term in terms:
            if at + term.size > start and at < end:
                before, trimmed = self._trimmed(term, start - at, end - at)
                skip = start - at - before if not used else skip
                used.append(trimmed)
            at += term.size
        rows = [
            {"hash": t.xorb, "unpacked_length": t.size, "range": {"start": t.first, "end": t.last}}
            for t in used
        ]
        answer = {"offset_into_first_range": skip, "terms": rows}
        return answer | (self._ranges_v1(used, url) if version == "1" else self._ranges(used, url))

    def _trimmed(self, term: Term, start: int, end: int) -> tuple[int, Term]:
        """Leave out the chunks of a term that hold nothing of bytes `start` to `end` of it.

        The first value is how many bytes are left out before it.
        """
        sizes = [len(c.data) for c in self.xorbs[term.xorb].chunks[term.first : term.last]]
        first, last, before, size = 0, len(sizes), 0, term.size
        while before + sizes[first] <= start:
            before, size, first = before + sizes[first], size - sizes[first], first + 1
        while before + size - sizes[last - 1] >= end:
            size, last = size - sizes[last - 1], last - 1
        return before, Term(term.xorb, size, term.first + first, term.first + last)

    def _ranges(self, terms: list[Term], url: str) -> dict[str, Any]:
        found: dict[str, list[dict[str, Any]]] = {}
        for term in terms:
            row = {"chunks": {"start": term.first, "end": term.last}, "bytes": self._span(term)}
            known = found.setdefault(term.xorb, [{"url": f"{url}/{term.xorb}", "ranges": []}])
            if row not in known[0]["ranges"]:
                known[0]["ranges"].append(row)
        return {"xorbs": found}

    def _ranges_v1(self, terms: list[Term], url: str) -> dict[str, Any]:
        found: dict[str, list[dict[str, Any]]] = {}
        for term in terms:
            row = {"range": {"start": term.first, "end": term.last},
                   "url": f"{url}/{term.xorb}", "url_range": self._span(term)}  # fmt: skip
            if row not in found.setdefault(term.xorb, []):
                found[term.xorb].append(row)
        return {"fetch_info": found}

    def _span(self, term: Term) -> dict[str, int]:
        chunks = self.xorbs[term.xorb].chunks
        return {"start": chunks[term.first].start, "end": chunks[term.last - 1].end - 1}

    def _bytes(self, term: Term) -> bytes:
        return b"".join(c.data for c in self.xorbs[term.xorb].chunks[term.first : term.last])


def _chunks(data: bytes) -> list[Chunk]:
    """Take a xorb apart; what follows its chunks, from `XETBLOB` on, is an index."""
    found, at = [], 0
    while at + 8 <= len(data) and data[at : at + 7] != b"XETBLOB":
        packed = int.from_bytes(data[at + 1 : at + 4], "little")
        scheme, size = data[at + 4], int.from_bytes(data[at + 5 : at + 8], "little")
        end = at + 8 + packed
        found.append(Chunk(at, end, _unpack(data[at + 8 : end], scheme, size)))
        at = end
    return found


def _packed(data: bytes) -> bytes:
    size = len(data).to_bytes(3, "little")
    return b"\0" + size + b"\0" + size + data


def _unpack(data: bytes, scheme: int, size: int) -> bytes:
    if scheme == 0:
        return data
    import lz4.frame

    plain: bytes = lz4.frame.decompress(data)
    if scheme == 2:
        whole, at = bytearray(size), 0
        for place in range(4):
            count = (size - place + 3) // 4
            whole[place::4] = plain[at : at + count]
            at += count
        plain = bytes(whole)
    if len(plain) != size:
        raise BadShardError("a chunk has another length than its header says")
    return plain


def _hex(raw: bytes) -> str:
    """Return a hash as xet writes it: four numbers of 64 bits, little-endian."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", raw[:32]))


def _files(data: bytes) -> list[tuple[str, tuple[Term, ...], str | None]]:
    """Return of each file of a shard its hash, its terms and its sha256, if it is said."""
    found, at = [], RECORD
    while data[at : at + 32] != BOOKEND:
        file_id = _hex(data[at:])
        flags, count = struct.unpack_from("<2I", data, at + 32)
        at += RECORD
        terms = []
        for _ in range(count):
            _, size, first, last = struct.unpack_from("<4I", data, at + 32)
            terms.append(Term(_hex(data[at:]), size, first, last))
            at += RECORD
        if flags & HAS_VERIFICATION:
            at += RECORD * count
        sha256 = _hex(data[at:]) if flags & HAS_METADATA else None
        at += RECORD if flags & HAS_METADATA else 0
        found.append((file_id, tuple(terms), sha256))
    return found
