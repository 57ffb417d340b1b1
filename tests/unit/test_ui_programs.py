"""Which servers `quantmint ui` starts, and where links lead."""

from __future__ import annotations

import pytest

from quantmint.assets.tracking import tracking_server
from quantmint.home import Home
from quantmint.pipelines.ui import DAGSTER, MLFLOW, Ports, programs

PORTS = Ports(3001, 5001)


def test_both_pages_are_served_here(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_server(home) is None
    started = programs(home, PORTS, PORTS.pages)
    assert [(each.name, each.url) for each in started] == list(PORTS.pages.items())


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
