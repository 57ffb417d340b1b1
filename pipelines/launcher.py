"""A run launcher that can tell whether a run's process still lives, and can end it.

Dagster's default launcher can't: after a power cut its run stays "started" for ever and keeps its
place in the queue. Run monitoring asks this launcher, fails the run and lets it be run again.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Any

from dagster import DagsterRun
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._serdes import ConfigurableClassData

from quantmint.pipelines.alive import worker_of


class LocalRunLauncher(DefaultRunLauncher):
    """The default launcher, with a health check by process id and start time."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Always: the workers are processes of this machine."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Return whether the process that executes `run` is still the same and alive.

        That holds for a run worker and for a run that a command executes in its own process.
        """
        worker = worker_of(self._instance, run)
        if worker is None:
            return CheckRunHealthResult(WorkerStatus.UNKNOWN, "no process was recorded")
        if worker.is_running:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"process {worker.pid} is gone")

    def terminate(self, run_id: str) -> bool:
        """Ask a run to end: through its code server, or by a signal where that no longer knows it.

        A run of the command line has no code server, and a run worker may outlive its own.
        """
        if not self.has_instance:
            return False
        try:
            if super().terminate(run_id):  # type: ignore[no-untyped-call]
                return True
        except Exception as error:  # noqa: BLE001 - whatever keeps the code server from answering
            self._instance.report_engine_event(
                f"the code server does not answer: {error}", self._instance.get_run_by_id(run_id)
            )
        run = self._instance.get_run_by_id(run_id)
        worker = None if run is None or run.is_finished else worker_of(self._instance, run)
        if worker is None or not worker.is_running:
            return False
        try:
            os.kill(worker.pid, signal.SIGINT)
        except OSError:
            return False
        return True

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> LocalRunLauncher:
        """Build the launcher as dagster.yaml asks for it."""
        return cls(inst_data=inst_data, **config_value)
