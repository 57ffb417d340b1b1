"""Where releases lie: what a place must be able to do, and what it lists."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from quantmint.errors import RegistryError
from quantmint.registry.transfer import Origin

MOST_FILES: Final = 4096
# A name that becomes part of an address, and of a path here: plain, visible, in this folder.
_PART: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_.+-]*[A-Za-z0-9_+-])?"
_PATH: Final = re.compile(rf"{_PART}(?:/{_PART})*")
LARGEST: Final = 1 << 44


@dataclass(frozen=True, slots=True)
class File:
    """A file as a place lists it: its size, and its sha256 or git's name of its bytes."""

    path: str
    size: int
    sha256: str | None = None
    git_oid: str | None = None

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One commit of a place. `skipped` counts models whose names are refused.

    `mirror` is who listed it, where the place itself could not be reached.
    """

    commit: str
    files: Mapping[str, File]
    skipped: int = 0
    mirror: str | None = None


class Place(Protocol):
    """A repository of a hub, or a registry in a folder.

    Every method may raise `RegistryError` (it can't be reached, or what it says makes no sense)
    and `UserError` (the token, the name or the network must change).
    """

    @property
    def name(self) -> str:
        """What references and records call it: `hub:owner/name`, `file:/folder`."""

    @property
    def owner(self) -> str | None:
        """Who owns it, where the place itself says so."""

    def listing(self, revision: str | None) -> Listing:
        """Return the files at a revision, or at the newest one."""

    def tags(self) -> tuple[str, ...]:
        """Return the names of its releases."""

    def read(self, listing: Listing, path: str, limit: int) -> bytes:
        """Return the bytes of a small file, of at most `limit` bytes; nothing of it is checked."""

    def part(self, listing: Listing, path: str, start: int, count: int) -> bytes:
        """Return `count` bytes of a file from `start` on; fewer where it ends before."""

    def origins(self, listing: Listing) -> tuple[Origin, ...]:
        """Return where the transfer finds the listed files, the best first."""


def check_name(path: str) -> bool:
    """Return whether a listed path may become part of an address and a path."""
    return len(path) <= 255 and _PATH.fullmatch(path) is not None


def file_of(path: object, size: object, sha256: object, git_oid: object = None) -> File | None:
    """Return a file out of what a place lists; None if its name is refused.

    Raises:
        ValueError: its size or its digest makes no sense.
    """
    if not isinstance(path, str) or not check_name(path):
        return None
    if type(size) is not int or not 0 <= size <= LARGEST:
        raise ValueError(f"the size of {path}")
    if sha256 is not None and (
        not isinstance(sha256, str) or re.fullmatch(r"[0-9a-f]{64}", sha256) is None
    ):
        raise ValueError(f"the digest of {path}")
    oid = git_oid if isinstance(git_oid, str) and re.fullmatch(r"[0-9a-f]{40}", git_oid) else None
    return File(path, size, sha256, oid)


def nonsense(place: str, what: str) -> RegistryError:
    """Return the error for a place whose answers can't be read."""
    return RegistryError(
        f"{place} answers with what no registry says: {what}",
        mend="try again later, or pull from another registry; tell who runs this one",
    )
