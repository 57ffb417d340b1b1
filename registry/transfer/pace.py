"""How fast: a cap on the rate, what was measured of it, and the waits between tries."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from typing import Final

from quantmint.registry.transfer.model import Limits

_WINDOW: Final = 5.0


class Bucket:
    """A cap on bytes per second that all connections share; a burst is a tenth of a second's."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._free_at = time.monotonic()
        self._lock = threading.Lock()

    def take(self, count: int) -> float:
        """Return the seconds to wait before so many more bytes are read."""
        if self._rate is None:
            return 0.0
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now - 0.1) + count / self._rate
            return max(0.0, self._free_at - now)


class Meter:
    """Counts bytes from all connections; the rate is that of the last five seconds."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()
        self._samples: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])

    def add(self, count: int) -> None:
        """Count bytes that came."""
        with self._lock:
            self.count += count

    def rate(self) -> float:
        """Return bytes per second, now."""
        now = time.monotonic()
        self._samples.append((now, self.count))
        while len(self._samples) > 2 and self._samples[1][0] < now - _WINDOW:
            self._samples.popleft()
        since, then = self._samples[0]
        return (self.count - then) / max(now - since, 1e-3)


def back_off(limits: Limits, failures: int) -> float:
    """Return the seconds to wait after so many failures in a row: doubled, and shaken by half.

    Without the shaking all who were thrown out together come back together.
    """
    wait = min(limits.longest, limits.first * 2.0 ** min(failures - 1, 30))
    return wait * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
