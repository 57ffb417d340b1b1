"""A bar over bytes that are hashed by several threads."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click


@contextmanager
def progress(total: int) -> Iterator[Callable[[int], None] | None]:
    """Show a bar to a person who watches; threads may report at once."""
    if not sys.stderr.isatty():
        yield None
        return
    lock = threading.Lock()

    def advance(count: int) -> None:
        with lock:
            bar.update(count)

    with click.progressbar(length=total, label="hashing", file=sys.stderr) as bar:
        yield advance
