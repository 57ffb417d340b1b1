"""Which servers `quantmint ui` starts, and where links lead."""

from __future__ import annotations

import pytest

from quantmint.assets.tracking import Tracked, dagster_run_url, tracking_server
from quantmint.home import Home
from quantmint.pipelines.only_one import only_one
from quantmint.pipelines.ui import DAGSTER, MLFLOW, Ports, programs

PORTS = Ports(3001, 5001)


def test_both_pages_are_served_here(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_server(home) is None
    started = programs(home, PORTS, PORTS.pages)
    assert [(each.name, each.url) for each in started] == list(PORTS.pages.items())


def test_links_lead_to_the_ports_of_the_service_that_is_up(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build in a terminal does not know with which ports `quantmint ui` was started."""
    for name in ("QUANTMINT_DAGSTER_URL", "QUANTMINT_MLFLOW_URL"):
        monkeypatch.delenv(name, raising=False)
    run = Tracked("r", "7")
    usual = "http://127.0.0.1:5000/#/experiments/7/runs/r"
    assert (run.url, dagster_run_url("a")) == (usual, "http://127.0.0.1:3000/runs/a")
    with only_one(home, "1-1", PORTS.pages):
        assert run.url == "http://127.0.0.1:5001/#/experiments/7/runs/r"
        assert dagster_run_url("a") == "http://127.0.0.1:3001/runs/a"
        monkeypatch.setenv("QUANTMINT_DAGSTER_URL", "https://mint.example.org")
        assert dagster_run_url("a") == "https://mint.example.org/runs/a"
    assert run.url == usual


def test_an_mlflow_server_elsewhere_is_linked_and_not_started(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ada:secret@mlflow.example.org:5000/")
    elsewhere = tracking_server(home)
    assert elsewhere == "http://mlflow.example.org:5000"
    (started,) = programs(home, PORTS, PORTS.pages | {MLFLOW: elsewhere})
    assert started.name == DAGSTER
    assert started.env["QUANTMINT_MLFLOW_URL"] == elsewhere
    assert "secret" not in " ".join(map(str, started.argv))
