"""Dagster's instance: one home folder, one configuration, opened once before several use it."""

from __future__ import annotations

import os
from typing import Final

import dagster as dg
import yaml

from quantmint.files import write_whole
from quantmint.home import Home

CONFIG: Final = {
    "telemetry": {"enabled": False},
    # Else a dialog that asks to join a community covers the first page.
    "nux": {"enabled": False},
    "run_launcher": {"module": "quantmint.pipelines.launcher", "class": "LocalRunLauncher"},
    "run_monitoring": {
        "enabled": True,
        "poll_interval_seconds": 15,
        "start_timeout_seconds": 180,
        "cancel_timeout_seconds": 60,
        "max_resume_run_attempts": 0,
        # Without it a run that died keeps its pool slots for ever.
        "free_slots_after_run_end_seconds": 30,
    },
    # Only crashes are run again: an error of a step says what to mend.
    "run_retries": {"enabled": True, "max_retries": 1, "retry_on_asset_or_op_failure": False},
    "concurrency": {
        "runs": {"max_concurrent_runs": 1},
        "pools": {"default_limit": 1, "granularity": "op"},
    },
}


def prepare(home: Home) -> None:
    """Write Dagster's configuration and make it this process's `DAGSTER_HOME`."""
    home.dagster.mkdir(parents=True, exist_ok=True)
    home.dagster.chmod(0o700)  # what is written there can run code in our processes
    text = yaml.safe_dump(CONFIG, sort_keys=True).encode()
    path = home.dagster / "dagster.yaml"
    if not path.is_file() or path.read_bytes() != text:
        write_whole(path, text)
    os.environ["DAGSTER_HOME"] = str(home.dagster)


def open_instance(home: Home) -> dg.DagsterInstance:
    """Return the instance that keeps its history in the home folder."""
    prepare(home)
    return dg.DagsterInstance.get()
