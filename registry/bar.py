"""A bar for who watches: one line, written over, as wide as the terminal is at the moment."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Final

from quantmint.files import human_bytes
from quantmint.watching import watched

if TYPE_CHECKING:
    from quantmint.registry.transfer import Progress

# Work on files that are here is shown if it takes longer than that, in seconds.
QUIET: Final = 1.0
_TOLD: Final = 0.1
_NAME: Final = 8
_NARROWEST: Final = 10


class Bar:
    """Name, share, bytes, rate, time left: of what comes, and of work on files that are here."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stderr
        self._shown = ""
        self._begun: dict[str, tuple[float, int]] = {}
        self._told = 0.0

    def __call__(self, now: Progress) -> None:
        """Show how far a transfer is."""
        reused = f"({human_bytes(now.reused)} were here)" if now.reused else ""
        self._show(now.path, now.done, now.size, now.rate, now.left, reused)

    def work(self, what: str, done: int, size: int) -> None:
        """Show how far some work here is, once it takes long."""
        now = time.monotonic()
        since, first = self._begun.setdefault(what, (now, done))
        if now - since >= QUIET and (now - self._told >= _TOLD or done >= size):
            self._told = now
            rate = (done - first) / max(now - since, 1e-3)
            self._show(what, done, size, rate, (size - done) / rate if rate > 0 else None)
        if done >= size:
            del self._begun[what]

    def end(self) -> None:
        """Leave the line."""
        if self._shown:
            blank = " " * min(len(self._shown), self._width())
            self._stream.write(f"\r{blank}\r")
            self._stream.flush()
            self._shown = ""

    def _show(
        self, name: str, done: int, size: int, rate: float, left: float | None, more: str = ""
    ) -> None:  # fmt: skip
        facts = [
            f"{done / size if size else 1.0:4.0%} of {human_bytes(size)}",
            f"{human_bytes(rate)}/s" if rate > 0 else "",
            f"{_time(left)} left" if left else "",
            more,
        ]
        width = self._width()
        line = fitted(name, facts, width)
        gap = " " * max(0, min(len(self._shown), width) - len(line))
        self._stream.write(f"\r{line}{gap}")
        self._stream.flush()
        self._shown = line

    def _width(self) -> int:
        """Return how much may be written: at the last column some terminals go on below."""
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns
        except (OSError, ValueError):
            columns = 0
        return max((columns or shutil.get_terminal_size().columns) - 1, _NARROWEST)


def fitted(name: str, facts: list[str], width: int) -> str:
    """Return a line of at most `width`: the name's end, and as many facts as have room.

    The last one goes first, then the size behind the share, then the rate.
    """
    share, rate, left, more = facts
    short = share.partition(" of ")[0]
    for kept in ((share, rate, left, more), (share, rate, left), (short, rate, left),
                 (short, left), (short,)):  # fmt: skip
        tail = "".join(f"  {fact}" for fact in kept if fact)
        room = width - len(tail)
        if room >= min(len(name), _NAME):
            return (name if len(name) <= room else f"...{name[len(name) - room + 3 :]}") + tail
    return short.strip()[:width]


def bar_for_people() -> Bar | None:
    """Return a bar if a person watches."""
    return Bar() if sys.stderr.isatty() else None


@contextmanager
def shown(bar: Bar | None) -> Iterator[None]:
    """Show work on files that takes long inside the block, and leave the line behind it."""
    if bar is None:
        yield
        return
    try:
        with watched(bar.work):
            yield
    finally:
        bar.end()


def _time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
