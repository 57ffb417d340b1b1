"""Clearing up after runs whose process was killed.

Dagster keeps such a run "started" for ever, and with it the pool slots that its steps had claimed:
the next run would wait for them without end. Run monitoring mends that while the daemon is up;
this mends it whenever the command line begins a run.
"""

from __future__ import annotations

import os
from typing import Final

import dagster as dg

from quantmint.pipelines.launcher import started_at, worker_of

PROCESS_TAG: Final = "quantmint/process"
UNFINISHED: Final = [
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
# Clocks and rounding may differ by this much between two readings of a start time.
SLACK_SECONDS: Final = 5.0


def process_tag() -> dict[str, str]:
    """Return the tag by which a run of this process is recognized: its id and start time."""
    return {PROCESS_TAG: f"{os.getpid()}-{started_at(os.getpid()) or 0:.0f}"}


def reap(instance: dg.DagsterInstance) -> list[str]:
    """Fail every run whose process is gone and free its pool slots; return their ids."""
    dead = [
        run
        for run in instance.get_runs(filters=dg.RunsFilter(statuses=UNFINISHED))
        if not _lives(instance, run)
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


def _lives(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    tag = run.tags.get(PROCESS_TAG)
    if tag is not None:
        pid, _, began = tag.partition("-")
        now = started_at(int(pid))
        return now is not None and abs(now - float(began)) <= SLACK_SECONDS
    worker = worker_of(instance, run)
    return worker is None or worker.is_running
