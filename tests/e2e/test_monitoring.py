"""Dagster's run monitoring, called as its daemon calls it, on runs that commands execute."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
import pytest
from dagster._core.launcher import WorkerStatus
from dagster._daemon.monitoring.run_monitoring import monitor_started_run

from quantmint.home import Home
from quantmint.pipelines.alive import process_tag
from quantmint.pipelines.instance import open_instance
from quantmint.pipelines.reaper import reap

pytestmark = pytest.mark.e2e

COMMAND = """
import sys, time
from pathlib import Path
import dagster as dg
from quantmint.home import Home
from quantmint.pipelines.alive import process_tag
from quantmint.pipelines.instance import open_instance

@dg.asset(pool="cpu")
def slow():
    print("runs", flush=True)
    time.sleep(600)

tags = process_tag() if sys.argv[1] == "tagged" else {}
with open_instance(Home(Path(sys.argv[2]))) as instance:
    silent = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    dg.materialize([slow], instance=instance, tags=tags | eval(sys.argv[3]), run_config=silent)
"""


@contextmanager
def command(home: Home, kind: str, tags: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A command that executes a run in its own process; yields once its step runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, kind, str(home.root), repr(tags)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "runs\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def instance(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("DAGSTER_HOME", "")  # restored at the end
    with open_instance(home) as instance:
        yield instance


def monitored(instance: dg.DagsterInstance) -> dg.DagsterRunStatus:
    """Let run monitoring look at the one run; return what it is then."""
    (record,) = instance.get_run_records()
    monitor_started_run(instance, None, record, logging.getLogger("test"))  # type: ignore[arg-type]
    return instance.get_run_records()[0].dagster_run.status


@pytest.mark.parametrize("kind", ["tagged", "untagged"])
def test_a_healthy_run_of_a_command_is_left_alone_and_a_killed_one_failed(
    home: Home, instance: dg.DagsterInstance, kind: str
) -> None:
    with command(home, kind, {}) as process:
        assert monitored(instance) is dg.DagsterRunStatus.STARTED
        assert reap(instance) == []
        process.kill()
        process.wait()
        assert monitored(instance) is dg.DagsterRunStatus.FAILURE
    storage = instance.event_log_storage
    assert storage.get_concurrency_info("cpu").claimed_slots  # what a kill leaves behind
    assert reap(instance) == []
    assert not storage.get_concurrency_info("cpu").claimed_slots


def test_a_command_past_its_time_is_interrupted_and_its_run_failed(
    home: Home, instance: dg.DagsterInstance
) -> None:
    with command(home, "tagged", {"dagster/max_runtime": "1"}) as process:
        assert instance.run_monitoring_max_runtime_seconds == 86400
        time.sleep(1.5)
        status = monitored(instance)
        assert process.wait(30) != 0
    assert status in {dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}
    (record,) = instance.get_run_records()
    assert record.dagster_run.is_finished


def test_a_process_that_got_a_dead_ones_number_is_another(
    home: Home, instance: dg.DagsterInstance
) -> None:
    """The tag names a start time as well."""
    with command(home, "tagged", {}) as process:
        (run,) = instance.get_runs()
        launcher = instance.run_launcher
        assert launcher.check_run_worker_health(run).status is WorkerStatus.RUNNING
        began = run.tags["quantmint/process"].partition("-")[2]
        earlier = run.with_tags(
            {**run.tags, "quantmint/process": f"{process.pid}-{int(began) - 60}"}
        )
        assert launcher.check_run_worker_health(earlier).status is WorkerStatus.NOT_FOUND
    assert process_tag()["quantmint/process"].startswith(f"{os.getpid()}-")
    assert -process.returncode == signal.SIGKILL
