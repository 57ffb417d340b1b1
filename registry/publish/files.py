"""What is published: a list of paths with their bytes, known by one digest."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from quantmint.errors import SourceError, UserError
from quantmint.files import digest_of
from quantmint.registry.store import Blob, Store, missing
from quantmint.registry.trees import check_path

# Files of a repository that a release neither brings nor drops.
ATTRIBUTES: Final = ".gitattributes"
CARD: Final = "README.md"
STATUS: Final = "quantmint.status.json"
STATUS_SIGNATURE: Final = "quantmint.status.dsse.json"
KEPT: Final = frozenset({ATTRIBUTES, STATUS, STATUS_SIGNATURE})
# A repository whose main holds this file carries a release of ours.
MANIFEST: Final = "quantmint.json"

RELEASE: Final = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")
SMALL: Final = 1 << 20


@dataclass(frozen=True)
class ReleaseFile:
    """One file: its path with `/`, the digest and size of its bytes, and where these are."""

    path: str
    blob: Blob
    source: Path | bytes

    @property
    def is_small(self) -> bool:
        """Whether it may be held in memory."""
        return self.blob.size <= SMALL

    def read(self) -> bytes:
        """Return the bytes of a small file."""
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()

    @cached_property
    def git_oid(self) -> str:
        """Git's name of these bytes: what a hub lists for files that it keeps in git itself."""
        head = b"blob %d\0" % self.blob.size
        digest = hashlib.sha1(head, usedforsecurity=False)
        if isinstance(self.source, bytes):
            digest.update(self.source)
            return digest.hexdigest()
        with self.source.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()


@dataclass(frozen=True)
class FileSet:
    """All files of one release, in the order of their paths."""

    files: tuple[ReleaseFile, ...]

    @staticmethod
    def of(store: Store, files: Mapping[str, Blob | bytes]) -> FileSet:
        """Build a file set from objects of the store and from bytes.

        Raises:
            UserError: a path is refused, or two differ in case alone.
            IntegrityError: an object is not in the store.
        """
        rows = []
        for path, content in sorted(files.items()):
            _check(path)
            if isinstance(content, bytes):
                blob = Blob(hashlib.sha256(content).hexdigest(), len(content))
                rows.append(ReleaseFile(path, blob, content))
                continue
            if not store.has(content):
                raise missing(content)
            rows.append(ReleaseFile(path, content, store.path(content.sha256)))
        folded = [row.path.casefold() for row in rows]
        if len(set(folded)) != len(folded):
            raise UserError("two files of a release have names that differ in case alone")
        return FileSet(tuple(rows))

    @cached_property
    def digest(self) -> str:
        """The sha256 that names this set: of its paths, digests and sizes."""
        return digest_of([[f.path, f.blob.sha256, f.blob.size] for f in self.files])

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.blob.size for file in self.files)

    @property
    def paths(self) -> frozenset[str]:
        """The paths of all files."""
        return frozenset(file.path for file in self.files)


def check_release(name: str) -> str:
    """Return the release's name if it can be a tag.

    Raises:
        UserError: it can't.
    """
    if len(name) > 64 or RELEASE.fullmatch(name) is None:
        raise UserError(
            f"{name[:64]!r} is no name of a release",
            mend="use letters, digits and single . _ - between them, such as v3 or 2026.1",
        )
    return name


def _check(path: str) -> None:
    if path in {STATUS, STATUS_SIGNATURE}:
        raise UserError(f"{path} is kept by the publisher itself: leave it out of the release")
    if path == ATTRIBUTES:
        return
    try:
        check_path(path)
    except SourceError as error:
        raise UserError(error.what) from None
