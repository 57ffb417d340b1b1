"""Threads that bring parts of one unfinished file, and the thread that watches over them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Final

from quantmint.registry.transfer.connection import Pool
from quantmint.registry.transfer.model import Limits
from quantmint.registry.transfer.pace import Bucket, Meter
from quantmint.registry.transfer.partial import Partial

_TICK: Final = 0.05
_GROW: Final = 0.25
_SYNC: Final = 64 << 20


class StoppedError(Exception):
    """Another thread failed, or the caller is interrupted."""


class Crew:
    """What the ways to fetch have in common: threads while they help, progress, and an end.

    `meter` counts what came. A thread is added, up to a number, while all together bring less than
    `Limits.enough`; the first error of one ends them all, and is raised by the thread that called.
    """

    def __init__(self, partial: Partial, limits: Limits, pool: Pool) -> None:
        self.partial = partial
        self.meter = Meter()
        self._limits = limits
        self._pool = pool
        self._bucket = Bucket(limits.rate)
        self._stop = threading.Event()
        self._farewell = math.inf  # seconds after which threads that don't end are left alone
        self._errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._synced = 0

    def _run(self, work: Callable[[], None], on_tick: Callable[[], None], most: int) -> None:
        grown = time.monotonic()
        try:
            self._start(work)
            while not self._stop.is_set() and (alive := self._alive()):
                alive[0].join(_TICK)
                now, rate = time.monotonic(), self.meter.rate()
                if self._has_more() and len(self._threads) < most and now - grown > _GROW:
                    grown = now
                    if rate < self._limits.enough:
                        self._start(work)
                self._watch()
                self._write_behind()
                on_tick()
        finally:
            self._stop.set()
            until = time.monotonic() + self._farewell
            while (alive := self._alive()) and time.monotonic() < until:
                self._cut()
                alive[0].join(_TICK)
        if self._errors:
            raise self._errors[0]

    def _has_more(self) -> bool:
        """Return whether there are parts that no thread has taken yet."""
        raise NotImplementedError

    def _watch(self) -> None:
        """Look after the threads, every twentieth of a second."""
        self._pool.cut(slow_only=True)

    def _cut(self) -> None:
        """Have the threads end soon."""
        self._pool.cut()

    def _check(self) -> None:
        if self._stop.is_set():
            raise StoppedError

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=self._guard, args=(work,), name="transfer", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _alive(self) -> list[threading.Thread]:
        return [thread for thread in self._threads if thread.is_alive()]

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except StoppedError:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that called
            self._errors.append(error)
            self._stop.set()

    def _write_behind(self) -> None:
        """Have the disk write while the rest comes, so that little is left in the end."""
        if self.meter.count - self._synced >= _SYNC:
            self._synced = self.meter.count
            self.partial.sync()
