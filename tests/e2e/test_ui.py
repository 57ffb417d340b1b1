"""The web pages as a service: started, used to materialize one variant, stopped."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from helpers import processes_of
from quantmint.home import Home
from quantmint.native.kernels import host_kernel

pytestmark = pytest.mark.e2e

LAUNCH = """
mutation($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}"""
STATUS = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
NODES = "{ assetNodes { assetKey { path } groupName isMaterializable } }"


@dataclass(frozen=True)
class Service:
    """A running `quantmint ui`."""

    process: subprocess.Popen[str]
    dagster: str
    mlflow: str
    home: Home

    def ask(self, query: str, **variables: Any) -> Any:
        """Ask Dagster's GraphQL."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"{self.dagster}/graphql", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            value = json.load(answer)
        assert "errors" not in value, value
        return value["data"]


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def service(seeded_home: Home) -> Iterator[Service]:
    """`quantmint ui` on free ports, once both pages answer."""
    ports = free_port(), free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "quantmint", "ui", "--port", str(ports[0]),
         "--mlflow-port", str(ports[1])],
        env={**os.environ, "QUANTMINT_HOME": str(seeded_home.root)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    seen: list[str] = []
    while "stop with Ctrl-C" not in "".join(seen[-1:]):
        line = process.stdout.readline()
        assert line, "".join(seen)
        seen.append(line)
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    assert all(url in "".join(seen) for url in urls)
    yield Service(process, urls[0], urls[1], seeded_home)
    process.kill()
    process.wait()
    process.stdout.close()


def test_one_variant_is_materialized_from_the_page_and_all_stops(service: Service) -> None:
    nodes = service.ask(NODES)["assetNodes"]
    groups = {node["groupName"] for node in nodes}
    assert {"models/phi_3_nano", "kernels", "upstream"} <= groups

    kernel = host_kernel().name
    keys = [["kernels", kernel]]
    keys += [
        ["phi-3-nano", leaf]
        for leaf in ("source_weights", "fp16_gguf", "Q4_K_M", f"Q4_K_M_on_{kernel}")
    ]
    run_id = launch(service, keys)
    assert wait_for(service, run_id) == "SUCCESS"
    assert (service.home.models / "phi-3-nano" / "Phi-3-nano-Q4_K_M.gguf").is_file()
    assert not (service.home.models / "phi-3-nano" / "Phi-3-nano-Q8_0.gguf").exists()

    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(timeout=60) == 0
    assert [line for line in processes_of(service.home) if "pytest" not in line] == []


def launch(service: Service, keys: list[list[str]]) -> str:
    """Launch a run as the page's "Materialize" button does."""
    params = {
        "selector": {
            "repositoryLocationName": location(service),
            "repositoryName": "__repository__",
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": path} for path in keys],
        },
        "runConfigData": {},
        "mode": "default",
    }
    answer = service.ask(LAUNCH, params=params)["launchPipelineExecution"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    return str(answer["run"]["runId"])


def location(service: Service) -> str:
    """Return the name of the one code location."""
    query = "{ workspaceOrError { ... on Workspace { locationEntries { name } } } }"
    (entry,) = service.ask(query)["workspaceOrError"]["locationEntries"]
    return str(entry["name"])


def wait_for(service: Service, run_id: str) -> str:
    """Wait until the run ended; return its status."""
    deadline = time.monotonic() + 420
    while time.monotonic() < deadline:
        status = str(service.ask(STATUS, id=run_id)["runOrError"]["status"])
        if status in {"SUCCESS", "FAILURE", "CANCELED"}:
            return status
        time.sleep(1)
    return "TIMEOUT"
