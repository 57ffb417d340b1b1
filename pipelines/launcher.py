"""A run launcher that can tell whether a run's worker still lives.

Dagster's default launcher can't: after a power cut its run stays "started" for ever and keeps its
place in the queue. Run monitoring asks this launcher, fails the run and lets it be run again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dagster import DagsterInstance, DagsterRun
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._serdes import ConfigurableClassData

_STARTED: Final = re.compile(r"Started process for run \(pid: (\d+)\)")
# A worker's process starts before its event is stored; clocks may differ by this much.
_SLACK_SECONDS: Final = 5


@dataclass(frozen=True, slots=True)
class Worker:
    """The process that was started for a run, and whether it is still that one and alive."""

    pid: int
    is_running: bool


def worker_of(instance: DagsterInstance, run: DagsterRun) -> Worker | None:
    """Return the worker that the run's log names, or None if none was recorded."""
    for record in instance.all_logs(run.run_id):
        event = record.dagster_event
        found = _STARTED.search(event.message or "") if event is not None else None
        if found is not None:
            started = started_at(int(found[1]))
            alive = started is not None and started <= record.timestamp + _SLACK_SECONDS
            return Worker(int(found[1]), alive)
    return None


class LocalRunLauncher(DefaultRunLauncher):
    """The default launcher, with a health check by process id and start time."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Always: the workers are processes of this machine."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Return whether the process that was started for `run` is still the same and alive."""
        worker = worker_of(self._instance, run)
        if worker is None:
            return CheckRunHealthResult(WorkerStatus.UNKNOWN, "no worker was recorded")
        if worker.is_running:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"worker {worker.pid} is gone")

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> LocalRunLauncher:
        """Build the launcher as dagster.yaml asks for it."""
        return cls(inst_data=inst_data, **config_value)


def started_at(pid: int) -> float | None:
    """Return when a process started, in seconds since 1970, or None if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        boot = Path("/proc/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    ticks = int(stat.rsplit(")", 1)[1].split()[19])
    booted = next(int(row.split()[1]) for row in boot.splitlines() if row.startswith("btime"))
    return booted + ticks / os.sysconf("SC_CLK_TCK")
