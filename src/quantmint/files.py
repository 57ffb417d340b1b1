"""Files that become visible only whole: staging, fsync, rename, fsync of the folder."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quantmint.errors import UserError

CHUNK = 1 << 20


def sha256_of(path: Path) -> str:
    """Return the sha256 of the file's bytes on disk, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: object) -> bytes:
    """Return `value` as JSON with sorted keys and no spaces: equal values give equal bytes."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def digest_of(value: object) -> str:
    """Return the sha256 of `value` as canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def fsync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_file(path: Path) -> None:
    """Make the bytes of `path` survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def temporary_name(folder: Path, stem: str) -> Path:
    """Return a name in `folder` that no other process uses: it holds our process id."""
    return folder / f"{stem}.{os.getpid()}.{secrets.token_hex(6)}"


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` so that `path` is either the old file or all of the new one.

    Raises:
        UserError: the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = temporary_name(path.parent, f".{path.name}")
    try:
        with full_disk_explained(path.parent):
            with staged.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            staged.rename(path)
        fsync_folder(path.parent)
    finally:
        staged.unlink(missing_ok=True)


@contextmanager
def full_disk_explained(folder: Path) -> Iterator[None]:
    """Turn `ENOSPC` and `EDQUOT` inside the block into one clear message.

    Raises:
        UserError: the disk or the quota is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise out_of_space(folder) from error


def out_of_space(folder: Path, needed: int | None = None) -> UserError:
    """Return the error that says how much room `folder`'s disk has, and how much was needed."""
    free = shutil.disk_usage(existing_parent(folder)).free
    wanted = "" if needed is None else f", {human_bytes(needed)} needed"
    return UserError(
        f"no space left on the disk of {folder} ({human_bytes(free)} free{wanted}); "
        "nothing half-made was kept",
        mend="free some space, or set QUANTMINT_HOME to a folder on a larger disk, and run again",
    )


def existing_parent(path: Path) -> Path:
    """Return `path` or its nearest parent that exists."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def clone_or_copy(source: Path, target: Path) -> None:
    """Make `target` a copy of `source`, sharing blocks where the file system can."""
    with full_disk_explained(target.parent), source.open("rb") as read, target.open("xb") as write:
        if _reflink(read.fileno(), write.fileno()):
            return
        shutil.copyfileobj(read, write, 8 * CHUNK)


def clone(source: Path, target: Path) -> bool:
    """Make `target` a read-only clone that shares blocks; False, and no file, where it can't."""
    with source.open("rb") as read, target.open("xb") as write:
        done = _reflink(read.fileno(), write.fileno())
    if done:
        target.chmod(0o444)
    else:
        target.unlink()
    return done


def _reflink(source: int, target: int) -> bool:
    """Share the blocks of one open file with another; False where it can't be done (FICLONE)."""
    import fcntl

    ficlone = 0x40049409
    try:
        fcntl.ioctl(target, ficlone, source)
    except OSError:
        return False
    return True


def human_bytes(count: float) -> str:
    """Return a size for people: `3.8 GB` (decimal units, as disks are sold)."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} TB"
