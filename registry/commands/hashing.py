"""A bar over bytes that are hashed by several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from quantmint.registry.bar import bar_for_people, shown


@contextmanager
def progress(total: int) -> Iterator[Callable[[int], None] | None]:
    """Show a bar to a person who watches, if it takes long; threads may report at once."""
    bar = bar_for_people()
    if bar is None:
        yield None
        return
    lock, done = threading.Lock(), 0

    def advance(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            bar.work("hashing", min(done, total), total)

    with shown(bar):
        yield advance
