"""Clearing up after runs whose process was killed.

Dagster keeps such a run "started" for ever, and with it the pool slots that its steps had claimed:
the next run would wait for them without end. Run monitoring mends that while the daemon is up;
this mends it whenever the command line begins a run, and before the service starts.
"""

from __future__ import annotations

from typing import Final

import dagster as dg

from quantmint.pipelines.alive import process_tag, worker_of

UNFINISHED: Final = [
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
__all__ = ["UNFINISHED", "process_tag", "reap"]


def reap(instance: dg.DagsterInstance, *, service_is_down: bool = False) -> list[str]:
    """Fail every run whose process is gone and free its pool slots; return their ids.

    While the service is down, and nothing of it is left, a run that it was about to start never
    will: it is failed as well.
    """
    dead = [
        run
        for run in instance.get_runs(filters=dg.RunsFilter(statuses=UNFINISHED))
        if not _lives(instance, run, unknown=not service_is_down)
    ]
    for run in dead:
        instance.report_run_failed(run, "the process of this run is gone")
    storage = instance.event_log_storage
    for key in storage.get_concurrency_keys():
        info = storage.get_concurrency_info(key)
        for run_id in {*info.active_run_ids, *info.pending_run_ids}:
            run_now = instance.get_run_by_id(run_id)
            if run_now is None or run_now.is_finished:
                storage.free_concurrency_slots_for_run(run_id)
    return [run.run_id for run in dead]


def _lives(instance: dg.DagsterInstance, run: dg.DagsterRun, *, unknown: bool) -> bool:
    worker = worker_of(instance, run)
    return unknown if worker is None else worker.is_running
