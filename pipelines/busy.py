"""Whether a command builds a model right now: between its runs Dagster knows nothing of it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quantmint.files import alone
from quantmint.home import Home


@contextmanager
def building(home: Home, model: str) -> Iterator[None]:
    """Let schedules know that the model is being built; any number of processes may say so.

    The lock ends with the process, whatever becomes of it. No result depends on it.
    """
    handle = _open(home, model)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def is_building(home: Home, model: str) -> bool:
    """Return whether a process says that it builds the model."""
    # Those who ask wait for each other: to one of them, the other would look like a builder.
    with alone(_path(home, model).with_suffix(".asking"), lambda: None):
        handle = _open(home, model)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False


def _path(home: Home, model: str) -> Path:
    return home.work / "building" / f"{model}.lock"


def _open(home: Home, model: str) -> int:
    path = _path(home, model)
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
