"""Who watches long work on files that are here: hashing, copying, writing and reading archives.

The work says how far it is (`note`); whoever runs it may listen (`watched`). Nobody else is told,
and threads that the work starts have nobody who watches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

# What is done to which file, the bytes that are done, and all of them.
Watch = Callable[[str, int, int], None]
_WATCH: Final[ContextVar[Watch | None]] = ContextVar("watch", default=None)
_NAME: Final[ContextVar[str | None]] = ContextVar("name", default=None)


@contextmanager
def watched(watch: Watch | None) -> Iterator[None]:
    """Tell `watch` of what is done inside the block."""
    token = _WATCH.set(watch)
    try:
        yield
    finally:
        _WATCH.reset(token)


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Call the file that is worked on inside the block so: a staged one's own name says nothing."""
    token = _NAME.set(name)
    try:
        yield
    finally:
        _NAME.reset(token)


def note(doing: str, name: str, done: int, size: int) -> None:
    """Say how far the work on a file is."""
    watch = _WATCH.get()
    if watch is not None:
        watch(f"{doing} {_NAME.get() or name}", done, size)
