"""Who uses the store now, and which objects: what garbage collection may not take from them.

    leases/<16 hex>   locked (flock) while its process lives: a line says who, the others what
    gc.lock           held shared to add a digest, exclusively while objects are moved out

A lease outlives its process if that is killed, so it has to be judged. A lock that is held is
proof of life. A lock that is free proves death only if locks work here and its holder was under
the same kernel: the same boot, or a file system that one machine alone can mount. The process id
with its start time helps where locks don't work. What can't be judged (another host on a network
disk) is left alone until nobody wrote to it for `AGE_BOUND` seconds.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

from quantmint import names
from quantmint.errors import UserError
from quantmint.files import canonical_json

Verdict = Literal["alive", "dead", "unknown"]
AGE_BOUND: Final = 7 * 86400.0
# Room for 250 digests is taken at once: a disk that fills up later can't unprotect a running build.
_RESERVED: Final = 16384
_LONGEST: Final = 64 << 20
_LOCK_WAIT: Final = 5.0
# Nobody can write here, so there is nothing to protect with.
_NO_RIGHT: Final = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT}
_ONE_MACHINE: Final = {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "tmpfs", "overlay"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The process that a lease stands for. `locked` says whether it could lock its lease."""

    host: str
    boot: str
    namespace: str
    pid: int
    started: str
    locked: bool


class Lease:
    """The pins of this process on one store; its file is made when it is first needed."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "leases"
        self._lock_path = root / "gc.lock"
        self._pid = os.getpid()
        self._mutex = threading.Lock()
        self._pins: set[str] = set()
        self._fd = -1
        self._name = ""
        self._end = 0

    @property
    def name(self) -> str:
        """The lease's file name; staging folders carry it.

        Raises:
            OSError: it can't be written.
        """
        with self._mutex:
            self._ensure()
            return self._name

    def pin(self, sha256: str) -> None:
        """Keep the object of that digest from collection until this process ends.

        Where the store may not be written nothing is pinned: nobody can collect there either,
        but with other rights.

        Raises:
            OSError: the pin could not be written down.
        """
        with self._mutex:
            if sha256 in self._pins and self._is_whole():
                return
            try:
                with self._shared():
                    self._ensure()
                    self._append(sha256)
            except OSError as error:
                if error.errno not in _NO_RIGHT:
                    raise
            self._pins.add(sha256)

    def close(self) -> None:
        """Let go of everything."""
        with self._mutex:
            if self._fd >= 0:
                with contextlib.suppress(OSError):
                    if self._is_whole() and self._pid == os.getpid():
                        (self.folder / self._name).unlink()
                os.close(self._fd)
            self._fd, self._name = -1, ""
            self._pins.clear()

    def _is_whole(self) -> bool:
        """Return whether the file is still there: a host that could not judge us may remove it."""
        return self._fd >= 0 and os.fstat(self._fd).st_nlink > 0

    def _ensure(self) -> None:
        if self._is_whole():
            return
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        name = secrets.token_hex(8)
        fd = _nameless(self.folder)
        try:
            with contextlib.suppress(OSError):
                os.posix_fallocate(fd, 0, _RESERVED)
            head = canonical_json(asdict(_ourselves(locked=_try_lock(fd)))) + b"\n"
            body = head + b"".join(f"{pin}\n".encode() for pin in sorted(self._pins))
            _write_at(fd, body, 0)
            _give_name(fd, self.folder / name)
        except BaseException:
            os.close(fd)
            raise
        self._fd, self._name, self._end = fd, name, len(body)

    def _append(self, sha256: str) -> None:
        line = f"{sha256}\n".encode()
        _write_at(self._fd, line, self._end)
        self._end += len(line)

    @contextlib.contextmanager
    def _shared(self) -> Iterator[None]:
        """Hold off collection for a moment; without the lock only that moment is unguarded."""
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                stack.enter_context(_locked(self._lock_path, fcntl.LOCK_SH, _LOCK_WAIT))
            yield


_held: dict[tuple[Path, int], Lease] = {}


def own_lease(root: Path) -> Lease:
    """Return this process's lease on the store below `root`; a forked child gets its own."""
    key = (root.absolute(), os.getpid())
    if key not in _held:
        if not _held:
            atexit.register(release_all)
        _held.setdefault(key, Lease(root.absolute()))
    return _held[key]


def release_all() -> None:
    """Let go of every lease of this process."""
    for key in [key for key in _held if key[1] == os.getpid()]:
        _held.pop(key).close()


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock at `path` for the length of the block; without locks nothing is held.

    Raises:
        UserError: somebody else holds it for longer than any work under it can take.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_locked(path, fcntl.LOCK_EX, 6 * _LOCK_WAIT))
        except TimeoutError as error:
            raise UserError(
                f"another process holds {path}",
                mend=f"wait for it, or see who it is: fuser -v {path}",
            ) from error
        except OSError:
            pass  # no locks here
        yield


def judge(path: Path) -> Verdict:
    """Return whether the process of the lease at `path` lives."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return "dead"
    except OSError:
        return "unknown"
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return "alive"
        except OSError:
            free = False
        else:
            free = not _lockable(path)  # we hold it: a second lock can be had only if locks lie
        holder, silent = _holder(fd), time.time() - os.fstat(fd).st_mtime
    except OSError:
        return "unknown"
    finally:
        os.close(fd)
    verdict = _judged(path, holder, free=free) if holder is not None else "unknown"
    return "dead" if verdict == "unknown" and silent > AGE_BOUND else verdict


def _judged(path: Path, holder: Holder, *, free: bool) -> Verdict:
    here = _ourselves(locked=True)
    proven = free and holder.locked
    if holder.boot == here.boot and here.boot:
        if proven:
            return "dead"
        if holder.namespace == here.namespace:
            return "alive" if _started(holder.pid) == holder.started else "dead"
        return "unknown"
    return "dead" if proven and _file_system(path) in _ONE_MACHINE else "unknown"


def read_pins(path: Path) -> tuple[str, set[str]]:
    """Return who holds the lease, for people, and the digests that it pins.

    Raises:
        OSError: it can't be read; `FileNotFoundError` if its process let go.
    """
    data = path.read_bytes()
    if len(data) > _LONGEST:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    head, *lines = data.rstrip(b"\0").split(b"\n")
    pins = {line.decode() for line in lines if names.DIGEST.fullmatch(line.decode("latin-1"))}
    holder = _parsed(head)
    return (f"process {holder.pid} on {holder.host}" if holder else "a process"), pins


def _holder(fd: int) -> Holder | None:
    return _parsed(os.pread(fd, 4096, 0).partition(b"\n")[0])


def _parsed(head: bytes) -> Holder | None:
    try:
        value = json.loads(head)
        holder = Holder(**value)
    except (ValueError, TypeError, RecursionError):
        return None
    texts = (holder.host, holder.boot, holder.namespace, holder.started)
    return holder if all(isinstance(t, str) for t in texts) and type(holder.pid) is int else None


def _ourselves(*, locked: bool) -> Holder:
    return Holder(
        host=socket.gethostname(),
        boot=_text("/proc/sys/kernel/random/boot_id"),
        namespace=_namespace(),
        pid=os.getpid(),
        started=_started(os.getpid()),
        locked=locked,
    )


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Return when a process started, in the kernel's ticks since boot; empty if there is none."""
    fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else ""


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _file_system(path: Path) -> str:
    """Return the type of the file system that holds `path`, as the kernel's table names it."""
    device = path.parent.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for row in _text("/proc/self/mountinfo").splitlines():
        left, _, right = row.partition(" - ")
        if left.split()[2] == wanted:
            return right.split()[0]
    return ""


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _lockable(path: Path) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _try_lock(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _locked(path: Path, kind: int, seconds: float) -> Iterator[None]:
    """Hold a lock on a file that is made if need be.

    Raises:
        TimeoutError: somebody else held it all the time.
        OSError: the file system has no locks, or the file can't be made.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(fd, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(str(path)) from None
                time.sleep(0.002)
        yield
    finally:
        os.close(fd)


def _nameless(folder: Path) -> int:
    """Open a new file without a name: locked and written before anyone can see it."""
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        return os.open(folder, flags | os.O_TMPFILE, 0o644)
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL}:
            raise
    half = folder / f".{secrets.token_hex(8)}"  # no such files here: a network disk
    return os.open(half, flags | os.O_CREAT | os.O_EXCL, 0o644)


def _give_name(fd: int, path: Path) -> None:
    there = Path(f"/proc/self/fd/{fd}")
    if os.fstat(fd).st_nlink > 0:
        there.readlink().rename(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.link(there, path.name, dst_dir_fd=folder)  # with a folder it follows the link in /proc
    finally:
        os.close(folder)


def _write_at(fd: int, data: bytes, offset: int) -> None:
    while data:
        done = os.pwrite(fd, data, offset)
        data, offset = data[done:], offset + done
