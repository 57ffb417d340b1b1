"""Progress of long steps that write a file and say nothing: bytes, rate and time left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from quantmint.files import human_bytes

# A line is a write into Dagster's history: ten seconds apart at first, and a twentieth of what
# has passed so far later, so that hours give some sixty lines more.
EVERY_SECONDS: Final = 10.0
SHARE: Final = 0.05


@contextmanager
def growing(
    report: Callable[[str], None],
    name: str,
    size: int,
    measure: Callable[[], int],
    *,
    every: float = EVERY_SECONDS,
) -> Iterator[None]:
    """Report, while the block runs, how many of `size` bytes there are; `measure` counts them."""
    done = threading.Event()
    began, before = time.monotonic(), measure()

    def watch() -> None:
        while not done.wait(max(every, SHARE * (time.monotonic() - began))):
            report(line(name, size, before, measure(), time.monotonic() - began))

    watcher = threading.Thread(target=watch, name=f"progress of {name}", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def line(name: str, size: int, before: int, now: int, seconds: float) -> str:
    """Return `x: 1.0 GB of 4.0 GB, 50.0 MB/s, 60 s left`; without a rate while nothing grows."""
    said = f"{name}: {human_bytes(min(now, size))} of {human_bytes(size)}"
    rate = (now - before) / seconds if seconds else 0.0
    if rate <= 0:
        return f"{said}, nothing new for {seconds:.0f} s"
    return f"{said}, {human_bytes(rate)}/s, {max(0, size - now) / rate:.0f} s left"


def bytes_in(folder: Path) -> int:
    """Return how many bytes the files below a folder take on the disk, holes left out."""
    total = 0
    for path in [folder, *folder.rglob("*")]:
        try:
            status = path.stat()
        except OSError:
            continue  # it was just renamed
        if path.is_file():
            total += min(status.st_size, 512 * status.st_blocks)
    return total
