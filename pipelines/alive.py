"""Which process executes a run, and whether that process is still there."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dagster import DagsterEventType, DagsterInstance, DagsterRun

from quantmint.pipelines.strays import start_ticks

PROCESS_TAG: Final = "quantmint/process"
# A run worker says the first of these; a run inside another process says one of the others.
_SAID: Final = re.compile(
    r"(?:Started process for run|Executing steps in process|"
    r"Executing steps using multiprocess executor: parent process) \(pid: (\d+)\)"
)
# Clocks and rounding may differ by this much between two readings of a start time.
SLACK_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Worker:
    """The process that executes a run, and whether it is still that one and alive."""

    pid: int
    is_running: bool


def process_tag() -> dict[str, str]:
    """Return the tags of a run that this process executes itself: its id and start time.

    The service does not try such a run again: whoever began it sees how it ended.
    """
    began = started_at(os.getpid()) or 0
    return {PROCESS_TAG: f"{os.getpid()}-{began:.0f}", "dagster/max_retries": "0"}


def worker_of(instance: DagsterInstance, run: DagsterRun) -> Worker | None:
    """Return the process that executes a run, by its tag or its log; None if neither names one."""
    tag = run.tags.get(PROCESS_TAG, "")
    pid, _, began = tag.partition("-")
    if pid.isdecimal() and began.isdecimal():
        now = started_at(int(pid))
        return Worker(int(pid), now is not None and abs(now - float(began)) <= SLACK_SECONDS)
    for record in instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT):
        event = record.dagster_event
        found = _SAID.search(event.message or "") if event is not None else None
        if found is not None:
            started = started_at(int(found[1]))
            # It started before it could say so; a later one has got its number.
            alive = started is not None and started <= record.timestamp + SLACK_SECONDS
            return Worker(int(found[1]), alive)
    return None


def started_at(pid: int) -> float | None:
    """Return when a process started, in seconds since 1970, or None if there is none.

    One that ended, and whose parent did not ask for its exit code yet, is none.
    """
    ticks = start_ticks(pid)
    if ticks is None:
        return None
    boot = Path("/proc/stat").read_text(encoding="utf-8")
    booted = next(int(row.split()[1]) for row in boot.splitlines() if row.startswith("btime"))
    return booted + ticks / os.sysconf("SC_CLK_TCK")
