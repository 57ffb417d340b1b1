"""Hashing what is in the store again: three verdicts, as `nix store verify` has them."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from quantmint import names

# A sum of them says in one number what was found.
BITS: Final = {"corrupt": 1, "unknown": 2, "unreadable": 4}
_CHUNK: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Fault:
    """One finding of `verify`: `corrupt`, `unknown` or `unreadable`, where, and what else."""

    verdict: str
    path: Path
    detail: str = ""


def verify_objects(
    paths: Sequence[Path], on_bytes: Callable[[int], None] | None = None
) -> Iterator[Fault]:
    """Hash each file and compare it with its name; yield what is wrong, in order.

    corrupt: the bytes are not what the name says. unknown: the name is no digest, or stands in
    the wrong folder. unreadable: the system does not give the bytes. One thread per core that we
    may use; `on_bytes` is told of every piece that was read.
    """
    workers = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(workers) as pool:
        running: deque[Future[Fault | None]] = deque()
        try:
            for path in paths:
                running.append(pool.submit(_check, path, on_bytes))
                if len(running) > 2 * workers:
                    yield from _finding(running.popleft())
            while running:
                yield from _finding(running.popleft())
        finally:
            pool.shutdown(cancel_futures=True)


def _finding(done: Future[Fault | None]) -> Iterator[Fault]:
    fault = done.result()
    if fault is not None:
        yield fault


def _check(path: Path, on_bytes: Callable[[int], None] | None) -> Fault | None:
    if names.DIGEST.fullmatch(path.name) is None or path.parent.name != path.name[:2]:
        return Fault("unknown", path, "no object has this name")
    try:
        actual = _hash(path, on_bytes)
    except FileNotFoundError:
        return None  # collected meanwhile
    except OSError as error:
        return Fault("unreadable", path, error.strerror or str(error))
    if actual == path.name:
        return None
    return Fault("corrupt", path, f"its bytes have the sha256 {actual}")


def _hash(path: Path, on_bytes: Callable[[int], None] | None) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    # Without O_NONBLOCK a pipe among the objects would be waited for without end.
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError("no regular file")
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            if on_bytes is not None:
                on_bytes(count)
    return digest.hexdigest()
