"""The processes of a service: found by a mark in their environment, whoever became their parent.

Dagster's own processes leave children behind when they are killed, some of them in sessions of
their own. All of them inherit the mark `QUANTMINT_SERVICE=PID-START:SERVER`, which names the
`quantmint ui` that they belong to.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

MARK: Final = "QUANTMINT_SERVICE"
_PREFIX: Final = MARK.encode() + b"="
END_SECONDS: Final = 10.0
Wanted = Callable[[bytes, dict[bytes, bytes]], bool]


def service_id() -> str:
    """Return what names this process as a service, and no later one that gets its number."""
    return f"{os.getpid()}-{start_ticks(os.getpid()) or 0}"


def start_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks since the machine did; None if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    fields = stat.rsplit(")", 1)[1].split()
    return None if fields[0] in "ZX" else int(fields[19])


def is_alive(service: str) -> bool:
    """Return whether the service that a mark names is there."""
    pid, _, start = service.partition("-")
    return pid.isdecimal() and str(start_ticks(int(pid))) == start


def of_service(service: str, server: str = "") -> Wanted:
    """Choose the processes of a service, or of one of its servers."""
    begins = f"{service}:{server}".encode()
    return lambda mark, _: mark == begins or (not server and mark.startswith(begins))


def left_behind(home: Path) -> Wanted:
    """Choose the processes of services of that home that are gone."""
    name = str(home).encode()

    def chosen(mark: bytes, environment: dict[bytes, bytes]) -> bool:
        of_home = environment.get(b"QUANTMINT_HOME") == name
        return of_home and not is_alive(mark.partition(b":")[0].decode("ascii", "replace"))

    return chosen


def find(wanted: Wanted) -> Iterator[int]:
    """Yield the ids of the processes with a chosen mark (none but on Linux)."""
    if sys.platform != "linux":
        return
    for folder in Path("/proc").glob("[0-9]*"):
        mark, environment = _marked(folder)
        if mark is not None and wanted(mark, environment):
            yield int(folder.name)


def end(wanted: Wanted, *, grace: float = 0.0) -> int:
    """Kill the chosen processes that are there after `grace` seconds; return how many there were.

    They may start others meanwhile: it is done when none is left.
    """
    if not _wait(wanted, grace):
        return 0
    ended: set[int] = set()
    deadline = time.monotonic() + END_SECONDS
    while time.monotonic() < deadline:
        found = list(find(wanted))
        if not found:
            break
        for pid in found:
            _kill(pid, wanted)
        ended.update(found)
        time.sleep(0.05)
    return len(ended)


def _wait(wanted: Wanted, seconds: float) -> bool:
    """Return whether some are still there after at most so many seconds."""
    deadline = time.monotonic() + seconds
    while next(find(wanted), None) is not None:
        if time.monotonic() >= deadline:
            return True
        time.sleep(0.2)
    return False


def _kill(pid: int, wanted: Wanted) -> None:
    """Kill the process unless another one got its number meanwhile."""
    with contextlib.suppress(OSError):
        handle = os.pidfd_open(pid)
        try:
            mark, environment = _marked(Path(f"/proc/{pid}"))
            if mark is not None and wanted(mark, environment):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)


def _marked(folder: Path) -> tuple[bytes | None, dict[bytes, bytes]]:
    """Return a process's mark and environment; no mark if it has none, is gone or not ours."""
    try:
        data = (folder / "environ").read_bytes()
    except OSError:
        return None, {}
    if _PREFIX not in data:
        return None, {}
    environment = dict(row.partition(b"=")[::2] for row in data.split(b"\0"))
    return environment.get(MARK.encode()), environment
