"""Files that become visible only whole: staging, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Final

from quantmint.errors import UserError
from quantmint.watching import note

CHUNK = 1 << 20
_TEMPORARY: Final = re.compile(r"\..+\.([0-9a-f]{16}\.part|[0-9]+\.[0-9a-f]{12})")
_DISK_FAILED: Final = {
    errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.EINTR,
}  # fmt: skip


def sha256_of(path: Path) -> str:
    """Return the sha256 of the file's bytes on disk, in hexadecimal."""
    with path.open("rb", buffering=0) as file:
        return sha256_of_open(file, path.name)


def sha256_of_open(file: FileIO | BufferedReader, name: str) -> str:
    """Return the sha256 of an open file's bytes from where it stands; who watches sees how far."""
    size, done = os.fstat(file.fileno()).st_size, 0
    digest, buffer = hashlib.sha256(), memoryview(bytearray(min(CHUNK, size + 1)))
    while count := file.readinto(buffer):
        digest.update(buffer[:count])
        done += count
        note("hashing", name, done, size)
    return digest.hexdigest()


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


def make_folders(folder: Path) -> None:
    """Make `folder` and whatever is missing above it, so that all of it survives a power cut.

    Raises:
        NotADirectoryError: a file has its name, or one above it.
    """
    if folder.is_dir():
        return
    make_folders(folder.parent)
    try:
        folder.mkdir(exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
    fsync_folder(folder.parent)


def temporary_name(path: Path) -> Path:
    """Return a name beside `path` that nobody else uses; `sweep_temporaries` knows its form.

    No process id is in it: on a shared disk it could be that of another host's process.
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")


def sweep_temporaries(folder: Path, *, older_than: float = 86400.0) -> list[Path]:
    """Remove temporary files and folders below `folder`, unwritten for `older_than` seconds.

    Whoever was killed, and on whichever host: a write takes minutes, not a day. Returns what was
    removed.
    """
    removed = []
    latest = time.time() - older_than
    for path in list(folder.rglob(".*")):
        with contextlib.suppress(OSError):
            found = path.lstat()
            if not _TEMPORARY.fullmatch(path.name) or found.st_mtime > latest:
                continue
            if stat.S_ISDIR(found.st_mode):
                shutil.rmtree(path)
            else:
                path.unlink()
            removed.append(path)
    return removed


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` so that `path` is either the old file or all of the new one.

    Raises:
        UserError: the disk is full, or it failed.
    """
    with full_disk_explained(path.parent):
        make_folders(path.parent)
        staged = temporary_name(path)
        try:
            write_synced(staged, data)
            move_into_place(staged, path)
        finally:
            with contextlib.suppress(OSError):
                staged.unlink()


def write_synced(path: Path, data: bytes) -> None:
    """Write a new file; its bytes survive a power cut, its name may not yet."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def move_into_place(staged: Path, path: Path) -> None:
    """Rename a finished file to `path`, replacing what is there; it survives a power cut."""
    staged.rename(path)
    fsync_folder(path.parent)


@contextmanager
def full_disk_explained(folder: Path) -> Iterator[None]:
    """Turn a disk that is full, read-only or failing inside the block into one clear message.

    Other errors (no such file, no right) pass: to callers they mean different things.

    Raises:
        UserError: the disk or the quota is full, or the disk or its file system failed.
    """
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise out_of_space(folder) from error
        if error.errno not in _DISK_FAILED:
            raise
        raise UserError(
            f"{error.filename or folder}: {error.strerror}; nothing half-made was kept",
            mend="look after the disk (dmesg | tail; df; ulimit -n), then run the same again",
        ) from error


def out_of_space(folder: Path, needed: int | None = None) -> UserError:
    """Return the error that says how much room `folder`'s disk has, and how much was needed."""
    free = shutil.disk_usage(existing_parent(folder)).free
    wanted = "" if needed is None else f", {human_bytes(needed)} needed"
    return UserError(
        f"no space left on the disk of {folder} ({human_bytes(free)} free{wanted}); "
        "nothing half-made was kept",
        mend="quantmint gc frees what nothing needs; or set QUANTMINT_HOME to a folder on a larger "
        "disk; then run again",
    )


def existing_parent(path: Path) -> Path:
    """Return `path` or its nearest parent that exists."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def clone_or_copy(source: Path, target: Path) -> None:
    """Make `target` a copy of `source`, sharing blocks where the file system can."""
    with full_disk_explained(target.parent), source.open("rb") as read, target.open("xb") as write:
        if _reflink(read.fileno(), write.fileno()):
            return
        size = os.fstat(read.fileno()).st_size
        while chunk := read.read(8 * CHUNK):
            write.write(chunk)
            note("copying", source.name, write.tell(), size)


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


@contextmanager
def alone(lock: Path, waiting: Callable[[], object]) -> Iterator[None]:
    """One process at a time; `waiting` is called if another one has the lock.

    Such a lock saves work: no result may depend on it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
