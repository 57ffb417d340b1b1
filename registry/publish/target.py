"""What a registry must be able to do, so that a release can be published to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from quantmint.registry.publish.files import KEPT, FileSet, ReleaseFile
from quantmint.registry.store import Blob


@dataclass(frozen=True, slots=True)
class Entry:
    """A file as a registry lists it: its size, and its sha256 or git's name of its bytes."""

    size: int
    sha256: str | None
    git_oid: str | None = None

    def is_same(self, file: ReleaseFile) -> bool:
        """Return whether these are that file's bytes."""
        if self.size != file.blob.size:
            return False
        if self.sha256 is not None:
            return self.sha256 == file.blob.sha256
        return self.git_oid is not None and self.git_oid == file.git_oid


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One commit of a registry, and all files of it."""

    commit: str
    files: Mapping[str, Entry]

    def has(self, file: ReleaseFile) -> bool:
        """Return whether the file stands here under its path with its bytes."""
        entry = self.files.get(file.path)
        return entry is not None and entry.is_same(file)

    def is_release(self, files: FileSet) -> bool:
        """Return whether the files are here and no others, but for those that are kept."""
        return self.dropped(files) == () and all(self.has(file) for file in files.files)

    def dropped(self, files: FileSet) -> tuple[str, ...]:
        """Return the paths that a release of these files would remove."""
        return tuple(sorted(set(self.files) - files.paths - KEPT))


@dataclass(frozen=True, slots=True)
class Refs:
    """Names of commits."""

    branches: Mapping[str, str]
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Staged:
    """A candidate: what its branch holds now, and which files had to be sent for it."""

    snapshot: Snapshot
    sent: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The next commit of main: staged files put, bytes added, paths removed, all at once."""

    parent: Snapshot
    title: str
    description: str = ""
    put: tuple[ReleaseFile, ...] = ()
    staged: Snapshot | None = None
    label: str = ""
    add: Mapping[str, bytes] = field(default_factory=dict)
    remove: tuple[str, ...] = ()

    def is_done(self, found: Snapshot) -> bool:
        """Return whether a commit shows all of this change."""
        return (
            all(found.has(file) for file in self.put)
            and all(found.has(file) for file in self.added)
            and not any(path in found.files for path in self.remove)
        )

    @property
    def added(self) -> tuple[ReleaseFile, ...]:
        """The added bytes as files."""
        return tuple(of_bytes(path, data) for path, data in self.add.items())


class Target(Protocol):
    """A registry with one repository: a hub's, or a folder's.

    Every method may raise `RegistryError` (the registry refused or failed) and `UserError` (the
    token, the name, the network or the disk must change).
    """

    @property
    def name(self) -> str:
        """What messages call it."""

    def prepare(self, *, private: bool) -> Snapshot:
        """Return main, after creating the repository if there is none."""

    def refs(self) -> Refs:
        """Return all branches and tags."""

    def at(self, revision: str) -> Snapshot:
        """Return a branch, a tag or a commit."""

    def stage(self, candidate: str, files: FileSet, head: Snapshot) -> Staged:
        """Bring the files to a branch of that name; what it has already is not sent again."""

    def mend(self, files: FileSet) -> tuple[str, ...]:
        """Put back what main lists and no longer holds, where that can be; return the paths."""

    def fetch(self, revision: str, path: str, blob: Blob, folder: Path) -> Path:
        """Return a local file with what is served, of at most the blob's size, not yet hashed."""

    def apply(self, change: Change) -> Snapshot:
        """Make exactly one commit on main, if main is still at the change's parent."""

    def tag(self, name: str, commit: str, message: str) -> None:
        """Name a commit; the same name for the same commit is no error."""

    def drop(self, candidate: str) -> None:
        """Remove a candidate's branch, if it is there."""


def of_bytes(path: str, data: bytes) -> ReleaseFile:
    """Return bytes as a file."""
    import hashlib

    return ReleaseFile(path, Blob(hashlib.sha256(data).hexdigest(), len(data)), data)
