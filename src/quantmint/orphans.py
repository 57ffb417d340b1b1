"""Processes that may not outlive whoever they work for.

A step of a run in the web UI is forked by a fork server, for a run worker. Neither the death of the
worker nor that of the fork server ends it: multiprocessing lets it go on, and it would write beside
the run that takes the dead one's place.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Final

PR_SET_PDEATHSIG: Final = 1
ORPHANED: Final = 75  # the exit code of a process whose parent is gone (EX_TEMPFAIL)
_STEP: Final = "ForkServerProcess"
_watched = threading.Event()


def is_step() -> bool:
    """Return whether this process was forked for one step of a run: the service runs it, no person.

    A run worker is spawned, not forked, and may outlive the code server that started it (Dagster
    reloads code that way); the command line has no parent of this kind at all.
    """
    return type(multiprocessing.current_process()).__name__ == _STEP


def end_with_parent() -> None:
    """Let this process end at once, children and all, when its run's worker does; once is enough.

    Nothing happens in a process that is no step.
    """
    parent = multiprocessing.parent_process()
    if parent is None or not is_step() or _watched.is_set():
        return
    _watched.set()
    _end_with_fork_server()
    threading.Thread(target=_watch, args=(parent,), name="parent", daemon=True).start()


def _watch(parent: BaseProcess) -> None:
    # A pipe whose other end the parent alone holds: readable as soon as it is gone, even if that
    # was before we began to look. Native children end with us (see quantmint.process).
    connection.wait([parent.sentinel])
    os._exit(ORPHANED)


def _end_with_fork_server() -> None:
    """The worker takes a step for ended when its fork server is gone, so it must be."""
    if sys.platform != "linux":
        return
    before = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != before:
        os._exit(ORPHANED)
