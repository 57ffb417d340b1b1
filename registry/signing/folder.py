"""A release as a folder on disk: every file of it is vouched for, or it is refused."""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from quantmint.errors import IntegrityError
from quantmint.files import sha256_of_open
from quantmint.registry.manifest.codec import INDEX_LIMIT, MANIFEST_LIMIT
from quantmint.registry.manifest.release import (
    ENVELOPE_FILE,
    MANIFEST_FILE,
    UNLISTED,
    Manifest,
)
from quantmint.registry.provenance import verify_provenance
from quantmint.registry.signing.envelope import ENVELOPE_LIMIT
from quantmint.registry.signing.release import Expect, Verified, verify_release
from quantmint.registry.tensors import check_table, read_table
from quantmint.registry.trust_policy import Policy

MOST_FILES: Final = 4096
# Where the Hub's client keeps notes about a folder that it downloaded to; never part of a release.
DOWNLOADER: Final = ".cache/huggingface"
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_MEND: Final = "fetch the release again; if it stays so, tell its publisher"


class Entry(Protocol):
    """What `verify_file` compares with: a file's size in bytes and its digest."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def sha256(self) -> str:
        """64 hexadecimal digits."""


def verify_file(path: Path, entry: Entry) -> None:
    """Hash the whole file as it lies on disk and compare; links are not followed.

    Raises:
        IntegrityError: it is missing, no regular file, or its size or sha256 is another.
    """
    with open(_open(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size != entry.size:
            raise _refused(path, f"it has {size} bytes, the manifest says {entry.size}")
        if sha256_of_open(file, path.name) != entry.sha256:
            raise _refused(path, "its sha256 is not the manifest's")


def read_capped(path: Path, limit: int) -> bytes:
    """Return the bytes of a regular file of at most `limit` bytes; links are not followed.

    Raises:
        IntegrityError: it is missing, no regular file, or larger.
    """
    with open(_open(path), "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise _refused(path, f"it is larger than {limit} bytes")
    return data


def verify_folder(
    folder: Path,
    policy: Policy,
    *,
    expect: Expect,
    now: datetime | None = None,
    strict: bool = False,
    deep: bool = False,
) -> Verified:
    """Verify a whole release: its signature, and that each file is listed and as listed.

    Files made from the manifest may lie beside it (`UNLISTED`); any other file that it does not
    list is refused. With `deep` each tensor is hashed again.

    Raises:
        IntegrityError: something is missing, added or changed.
    """
    found = listing(folder)
    envelope = read_capped(folder / ENVELOPE_FILE, ENVELOPE_LIMIT)
    verified = verify_release(envelope, policy, expect=expect, now=now, strict=strict)
    manifest = verified.manifest
    plain = read_capped(folder / MANIFEST_FILE, MANIFEST_LIMIT)
    if hashlib.sha256(plain).hexdigest() != verified.sha256:
        raise _refused(folder / MANIFEST_FILE, "it is not the manifest that was signed")
    listed = {entry.path for entry in manifest.entries}
    added = sorted(found - listed - UNLISTED)
    if added:
        raise _refused(folder / added[0], "the manifest does not list it")
    for entry in manifest.entries:
        verify_file(folder / entry.path, entry)
    _verify_tables(folder, manifest, deep=deep)
    for other in manifest.files:
        if other.role == "provenance":
            data = read_capped(folder / other.path, ENVELOPE_LIMIT)
            verify_provenance(data, policy, manifest)
    return verified


def listing(folder: Path) -> set[str]:
    """Return the path of every file below `folder`, parts joined with `/`.

    The notes of the Hub's own downloader are passed by.

    Raises:
        IntegrityError: there is a link or special file, or there are more than 4096 files.
    """
    found: set[str] = set()
    waiting = [""]
    while waiting:
        inner = waiting.pop()
        for item in _entries(folder / inner):
            path = f"{inner}/{item.name}" if inner else item.name
            if item.is_dir(follow_symlinks=False):
                if path != DOWNLOADER:
                    waiting.append(path)
            elif item.is_file(follow_symlinks=False):
                found.add(path)
            else:
                raise _refused(folder / path, "it is a link or no regular file")
            if len(found) + len(waiting) > MOST_FILES:
                raise _refused(folder, f"it holds more than {MOST_FILES} files")
    return found


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as items:
            return list(itertools.islice(items, MOST_FILES + 1))
    except OSError as error:
        raise _refused(folder, f"it is no folder that can be read ({error.strerror})") from None


def _verify_tables(folder: Path, manifest: Manifest, *, deep: bool) -> None:
    for variant in manifest.variants:
        path = folder / variant.tensors.path
        table = read_table(read_capped(path, INDEX_LIMIT), what=variant.tensors.path)
        file = variant.file
        if (table.file, table.size, table.sha256) != (file.path, file.size, file.sha256):
            raise _refused(path, f"it is the table of another file than {file.path}")
        check_table(table, folder / file.path, deep=deep)


def _open(path: Path) -> int:
    try:
        handle = os.open(path, _FLAGS)
    except FileNotFoundError:
        raise _refused(path, "it is missing") from None
    except OSError as error:
        raise _refused(path, f"it is a link or can't be read ({error.strerror})") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _refused(path, "it is no regular file")
    return handle


def _refused(path: Path, why: str) -> IntegrityError:
    return IntegrityError(f"{path.name} is refused: {why}", mend=_MEND)
