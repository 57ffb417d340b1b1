"""The processes that work in a home folder, and what each of them is."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from quantmint.home import Home

# In this order: the first words that are found in a command line say what it is.
ROLES = {
    "-m quantmint ui": "supervisor",
    "quantmint.pipelines.guard": "guard",
    "-m dagster dev": "dagster dev",
    "dagster_webserver": "webserver",
    "dagster._daemon": "daemon",
    "dagster code-server": "outer code server",
    "dagster api grpc": "code server",
    "multiprocessing.resource_tracker": "tracker",
    "multiprocessing.spawn": "run worker",
    "multiprocessing.forkserver": "fork server",
    "mlflow": "MLflow",
}


@dataclass(frozen=True)
class Process:
    """A process that works in the home folder."""

    pid: int
    parent: int
    role: str
    line: str


def processes(home: Home) -> list[Process]:
    """Return all processes of that home: by environment, command line or parent."""
    rows: dict[int, tuple[int, str, bool]] = {}
    setting = f"QUANTMINT_HOME={home.root}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            environ = (folder / "environ").read_bytes().split(b"\0")
        except (OSError, UnicodeDecodeError):
            continue
        fields = stat.rsplit(")", 1)[1].split()
        if fields[0] in "ZX" or int(folder.name) == os.getpid():
            continue
        ours = setting in environ or str(home.root) in line
        rows[int(folder.name)] = int(fields[1]), line, ours
    kept = {pid for pid, (_, _, ours) in rows.items() if ours}
    kept |= set(_children(kept, rows))
    found = {pid: Process(pid, rows[pid][0], _role(rows[pid][1]), rows[pid][1]) for pid in kept}
    return [_step_or(process, found) for process in found.values()]


def _children(kept: set[int], rows: dict[int, tuple[int, str, bool]]) -> Iterable[int]:
    for pid in rows:
        seen, above = {pid}, rows[pid][0]
        while above in rows and above not in seen and above not in kept:
            seen.add(above)
            above = rows[above][0]
        if above in kept:
            yield pid


def _role(line: str) -> str:
    return next((role for words, role in ROLES.items() if words in line), "tool")


def _step_or(process: Process, found: dict[int, Process]) -> Process:
    """A step has its fork server's command line, and is its child."""
    parent = found.get(process.parent)
    forked = process.role == "fork server" and parent and parent.role in {"fork server", "step"}
    return Process(process.pid, process.parent, "step", process.line) if forked else process


def of_role(home: Home, role: str) -> list[Process]:
    """Return the processes that are that."""
    return [process for process in processes(home) if process.role == role]


def kill(targets: Iterable[Process]) -> None:
    """Kill them, as fast as can be."""
    for process in targets:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def left(targets: Iterable[Process], seconds: float) -> list[Process]:
    """Return which of these are there after at most so many seconds."""
    deadline = time.monotonic() + seconds
    wanted = list(targets)
    while True:
        wanted = [process for process in wanted if _is_there(process)]
        if not wanted or time.monotonic() > deadline:
            return wanted
        time.sleep(0.05)


def _is_there(process: Process) -> bool:
    try:
        stat = Path(f"/proc/{process.pid}/stat").read_text()
        line = Path(f"/proc/{process.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] not in "ZX" and line == process.line
