"""Dagster's instance: one home folder, one configuration, opened once before several use it."""

from __future__ import annotations

import os
from typing import Final

import dagster as dg
import yaml

from quantmint.files import alone, write_whole
from quantmint.home import Home
from quantmint.pipelines.database import storage_config

CONFIG: Final = {
    "telemetry": {"enabled": False},
    # Else a dialog that asks to join a community covers the first page.
    "nux": {"enabled": False},
    "run_launcher": {"module": "quantmint.pipelines.launcher", "class": "LocalRunLauncher"},
    "run_monitoring": {
        "enabled": True,
        "poll_interval_seconds": 10,
        "start_timeout_seconds": 180,
        "cancel_timeout_seconds": 60,
        # A day: what was made until then is kept, and the run that is tried again goes on from it.
        # The tag `dagster/max_runtime` of one run says otherwise.
        "max_runtime_seconds": 86400,
        "max_resume_run_attempts": 0,
        # Without it a run that died keeps its pool slots for ever.
        "free_slots_after_run_end_seconds": 10,
    },
    # Only crashes are run again: an error of a step says what to mend.
    "run_retries": {"enabled": True, "max_retries": 1, "retry_on_asset_or_op_failure": False},
    "concurrency": {
        "runs": {"max_concurrent_runs": 1},
        "pools": {"default_limit": 1, "granularity": "op"},
    },
}


def prepare(home: Home) -> None:
    """Write Dagster's configuration and make it this process's `DAGSTER_HOME`.

    Raises:
        UserError: records are to be kept on a PostgreSQL server that can't be used.
    """
    home.dagster.mkdir(parents=True, exist_ok=True)
    home.dagster.chmod(0o700)  # what is written there can run code in our processes
    path = home.dagster / "dagster.yaml"
    text = yaml.safe_dump({**CONFIG, **storage_config(path)}, sort_keys=True).encode()
    if not path.is_file() or path.read_bytes() != text:
        write_whole(path, text)
    os.environ["DAGSTER_HOME"] = str(home.dagster)


def open_instance(home: Home) -> dg.DagsterInstance:
    """Return the instance that keeps its history in the home folder.

    One process at a time opens it: two that make its databases at the same moment leave them with
    two versions each, and nothing opens them any more.
    """
    prepare(home)
    with alone(home.dagster / "open.lock", lambda: None):
        instance = dg.DagsterInstance.get()
        instance.event_log_storage.get_concurrency_keys()
        instance.get_runs_count()
        return instance
