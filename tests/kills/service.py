"""`quantmint ui` as a process, and what one asks its pages for."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quantmint.home import Home

LAUNCH = """
mutation($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}"""
RUNS = """{ runsOrError { ... on Runs { results {
  runId status parentRunId tags { key value } stepStats { stepKey status } } } } }"""
NODES = "{ assetNodes { assetKey { path } groupName isMaterializable } }"
SLOTS = """{ instance { concurrencyLimits {
  concurrencyKey claimedSlots { runId } pendingSteps { runId } } } }"""
SCHEDULES = """query($at: RepositorySelector!) { schedulesOrError(repositorySelector: $at) {
  ... on Schedules { results { name scheduleState { status } } } } }"""
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}
READY = "stop with Ctrl-C"


@dataclass(frozen=True)
class Run:
    """One run, as the page shows it."""

    id: str
    status: str
    parent: str | None
    tags: Mapping[str, str]
    steps: Mapping[str, str]

    @property
    def is_settled(self) -> bool:
        """It ended, and no other run is made of it by itself."""
        return self.status in ENDED and self.tags.get("dagster/will_retry") != "true"


@dataclass
class Service:
    """A running `quantmint ui` and its output."""

    home: Home
    env: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[int, int] = (0, 0)
    process: subprocess.Popen[str] | None = None
    said: list[str] = field(default_factory=list)

    @property
    def dagster(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def mlflow(self) -> str:
        return f"http://127.0.0.1:{self.ports[1]}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def output(self) -> str:
        return "".join(self.said)

    def start(self) -> Service:
        """Start it, on the ports that it had before, and wait until both pages answer."""
        if self.ports == (0, 0):
            self.ports = free_port(), free_port()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "quantmint", "ui", "--port", str(self.ports[0]),
             "--mlflow-port", str(self.ports[1])],
            env={**os.environ, **self.env, "QUANTMINT_HOME": str(self.home.root)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.said.clear()
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()
        self.wait_for(READY)
        return self

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            self.said.extend(process.stdout)

    def wait_for(self, words: str, times: int = 1, seconds: float = 240) -> None:
        """Wait until it said `words` so many times."""
        deadline = time.monotonic() + seconds
        while self.output.count(words) < times:
            assert self.process is not None
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.1)

    def stop(self, number: int = signal.SIGTERM, seconds: float = 60) -> int:
        """Ask it to stop; return its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=seconds)

    def kill(self) -> None:
        """End it at once, if it runs; its guard ends the rest."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def ask(self, query: str, **variables: Any) -> Any:
        """Ask Dagster's GraphQL."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.dagster}/graphql", body, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            value = json.load(answer)
        assert "errors" not in value, value
        return value["data"]

    def ask_patiently(self, query: str, seconds: float = 120, **variables: Any) -> Any:
        """Ask Dagster's GraphQL, which may just be starting again."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.ask(query, **variables)
            except (urllib.error.URLError, OSError):
                assert time.monotonic() < deadline, self.output
                time.sleep(0.3)

    def runs(self) -> list[Run]:
        """Return all runs, the newest first."""
        return [
            Run(
                id=row["runId"],
                status=row["status"],
                parent=row["parentRunId"],
                tags={tag["key"]: tag["value"] for tag in row["tags"]},
                steps={step["stepKey"]: step["status"] for step in row["stepStats"]},
            )
            for row in self.ask_patiently(RUNS)["runsOrError"]["results"]
        ]

    def run(self, run_id: str) -> Run:
        """Return one run."""
        return next(run for run in self.runs() if run.id == run_id)

    def wait(self, run_id: str, seconds: float = 900) -> str:
        """Wait until the run ended; return its status."""
        deadline = time.monotonic() + seconds
        while (status := self.run(run_id).status) not in ENDED:
            assert time.monotonic() < deadline, f"{status} for ever\n{self.output}"
            time.sleep(0.5)
        return status

    def keys(self, group: str) -> list[list[str]]:
        """Return the keys of the group's assets that can be materialized."""
        deadline = time.monotonic() + 60
        while True:
            nodes = self.ask_patiently(NODES)["assetNodes"]
            found = [n["assetKey"]["path"] for n in nodes
                     if n["groupName"] == group and n["isMaterializable"]]  # fmt: skip
            if found:
                return found
            assert time.monotonic() < deadline, f"no assets in {group}\n{self.output}"
            time.sleep(0.5)

    def launch(self, keys: Sequence[Sequence[str]], config: Mapping[str, Any] = {}) -> str:
        """Launch a run as the page's "Materialize" button does."""
        params = {
            "selector": {
                "repositoryLocationName": self._location(),
                "repositoryName": "__repository__",
                "pipelineName": "__ASSET_JOB",
                "assetSelection": [{"path": list(path)} for path in keys],
            },
            "runConfigData": dict(config),
            "mode": "default",
        }
        answer = self.ask(LAUNCH, params=params)["launchPipelineExecution"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["runId"])

    def schedules(self) -> dict[str, str]:
        """Return the status of every schedule, `RUNNING` or `STOPPED`."""
        at = {"repositoryLocationName": self._location(), "repositoryName": "__repository__"}
        found = self.ask(SCHEDULES, at=at)["schedulesOrError"]["results"]
        return {row["name"]: row["scheduleState"]["status"] for row in found}

    def wait_for_schedule(self, name: str, status: str, seconds: float = 60) -> None:
        """Wait until a schedule has that status."""
        deadline = time.monotonic() + seconds
        while (found := self.schedules()[name]) != status:
            assert time.monotonic() < deadline, f"{name} is {found}"
            time.sleep(0.2)

    def _location(self) -> str:
        query = "{ workspaceOrError { ... on Workspace { locationEntries { name } } } }"
        (entry,) = self.ask(query)["workspaceOrError"]["locationEntries"]
        return str(entry["name"])

    def claimed(self) -> list[str]:
        """Return the pools in which a slot is claimed, or waited for."""
        rows = self.ask_patiently(SLOTS)["instance"]["concurrencyLimits"]
        return [r["concurrencyKey"] for r in rows if r["claimedSlots"] or r["pendingSteps"]]


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
