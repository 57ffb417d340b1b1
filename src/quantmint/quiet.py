"""Work that needs many cores, and measurements of speed, which need all of them for themselves.

Heavy work holds a lock of the home folder together with other heavy work; a measurement holds it
alone. The kernel frees it with the process, however that ends. Dagster's pools keep steps apart
inside one instance; this holds between the web UI, the command line and pools as well.
"""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from quantmint.errors import BugError
from quantmint.files import full_disk_explained
from quantmint.home import Home

Report = Callable[[str], None]

FOR_SPEED: Final = "waiting for heavy work to end: speed is measured with nothing beside it"
FOR_WORK: Final = "waiting for a measurement of speed, which needs the machine for itself"
_SHARED: Final = fcntl.LOCK_SH
_ALONE: Final = fcntl.LOCK_EX


class _Held(threading.local):
    """How deep this thread is in heavy work."""

    depth = 0


_held = _Held()


@contextmanager
def heavy(home: Home, report: Report) -> Iterator[None]:
    """Use the cores inside the block, beside other heavy work but beside no measurement.

    A block inside another one asks for nothing more.

    Raises:
        UserError: the disk is full.
    """
    if _held.depth:
        _held.depth += 1
        try:
            yield
        finally:
            _held.depth -= 1
        return
    with _locked(home, _SHARED, lambda: report(FOR_WORK)):
        _held.depth = 1
        try:
            yield
        finally:
            _held.depth = 0


@contextmanager
def quiet(home: Home, report: Report) -> Iterator[None]:
    """Have the machine for oneself inside the block, as far as this home's work goes.

    Raises:
        BugError: asked for inside heavy work, which would wait for itself.
        UserError: the disk is full.
    """
    if _held.depth:
        raise BugError("speed can't be measured inside heavy work")
    with _locked(home, _ALONE, lambda: report(FOR_SPEED)):
        yield


@contextmanager
def _locked(home: Home, mode: int, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the machine; whoever waits for it keeps later ones from going before."""
    folder = home.root / "locks"
    with full_disk_explained(home.root):
        folder.mkdir(parents=True, exist_ok=True)
    with _open(folder / "machine.next") as turn, _open(folder / "machine") as machine:
        said = _take(turn, _ALONE, waiting)
        _take(machine, mode, (lambda: None) if said else waiting)
        fcntl.flock(turn, fcntl.LOCK_UN)
        yield


def _open(path: Path) -> IO[bytes]:
    return path.open("ab")


def _take(file: IO[bytes], mode: int, waiting: Callable[[], None]) -> bool:
    """Lock the file; return whether that had to be waited for."""
    try:
        fcntl.flock(file, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        waiting()
        fcntl.flock(file, mode)
        return True
    return False
