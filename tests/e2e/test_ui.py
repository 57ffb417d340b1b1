"""The web pages as a service: used to materialize one variant, killed in parts, stopped."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import run_in
from kills.point import MODEL, SECONDS, WITH, Place, wait_until
from kills.service import READY, Service
from kills.tree import kill, left, of_role, processes
from quantmint.home import Home
from quantmint.native.build import Bundle
from quantmint.native.kernels import host_kernel
from quantmint.pipelines.guard import GRACE_SECONDS

pytestmark = pytest.mark.e2e

CONVERSION = [[MODEL, "source_weights"], [MODEL, "fp16_gguf"]]


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of model files that the service looks into; empty so far."""
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setenv("QUANTMINT_MODELS", str(folder))
    return folder


@pytest.fixture
def service(seeded_home: Home, models: Path) -> Iterator[Service]:
    """`quantmint ui` on free ports, once both pages answer."""
    assert models.is_dir()
    service = Service(seeded_home).start()
    yield service
    service.kill()
    assert left(processes(seeded_home), GRACE_SECONDS + 10) == []


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory, built_home: Home, bundle: Bundle) -> Place:
    """A home with a model file and a source of its own."""
    assert bundle.folder.is_dir()
    return Place(tmp_path_factory.mktemp("kills") / "place").make(built_home)


def test_one_variant_is_materialized_from_the_page_and_all_stops(
    service: Service, models: Path
) -> None:
    assert service.dagster in service.output
    assert service.mlflow in service.output
    kernel = host_kernel().name
    keys = [["kernels", kernel]]
    keys += [
        ["phi-3-nano", leaf]
        for leaf in ("source_weights", "fp16_gguf", "Q4_K_M", f"Q4_K_M_on_{kernel}")
    ]
    assert {tuple(key) for key in keys[1:]} <= set(map(tuple, service.keys("models/phi_3_nano")))
    run_id = service.launch(keys)
    (models / "added.yaml").write_text("model: added\nsource: {path: x}\nvariants: [Q8_0]\n")
    refused_second(service)
    service.wait_for("a model file changed: the definitions were loaded again")
    assert ["added", "Q8_0"] in service.keys("models/added")
    guards = of_role(service.home, "guard")
    kill(guards)  # nothing depends on it, and there is a new one
    assert left(guards, SECONDS) == []
    wait_until(lambda: len(of_role(service.home, "guard")) == 1, "no new guard")
    assert service.wait(run_id) == "SUCCESS"
    assert (service.home.models / "phi-3-nano" / "Phi-3-nano-Q4_K_M.gguf").is_file()
    assert not (service.home.models / "phi-3-nano" / "Phi-3-nano-Q8_0.gguf").exists()

    assert service.stop() == 0
    assert left(processes(service.home), 1) == []
    assert service.output.endswith("stopped\n")


def refused_second(service: Service) -> None:
    """A second one on the same home would run every schedule twice."""
    second = run_in(service.home, "ui", "--port", "1", "--mlflow-port", "2", timeout=60)
    assert second.code == 2
    assert f"process {service.pid}: Dagster {service.dagster}" in second.err
    assert f"kill {service.pid}" in second.err


def test_killed_parts_come_back_and_nothing_is_left(place: Place) -> None:
    """Three points of `python -m kills`, in one service: run worker, web server, service."""
    home, service = place.home, place.service().start()
    try:
        first = service.launch(CONVERSION)
        wait_until(lambda: bool(of_role(home, "step")), "no step began")
        doomed = [p for p in processes(home) if p.role in {"run worker", *WITH["run worker"]}]
        kill(of_role(home, "run worker"))
        assert left(doomed, SECONDS) == []
        wait_until(lambda: service.run(first).status == "FAILURE", "the run's death is not seen")

        doomed = [p for p in processes(home) if p.role in {"webserver", *WITH["webserver"]}]
        kill(of_role(home, "webserver"))
        assert left(doomed, SECONDS) == []
        service.wait_for("Dagster: ", times=2)
        assert "starting it again" in service.output

        wait_until(lambda: bool(retried(service, first)), "the run is not tried again")
        (second,) = retried(service, first)
        assert service.wait(second) == "SUCCESS"
        wait_until(lambda: not service.claimed(), "a pool's slot stays claimed", 40)
        assert ", 0 faults" in run_in(home, "verify").out

        everyone = processes(home)
        service.kill()
        assert left(everyone, GRACE_SECONDS + 10) == []
    finally:
        service.kill()


def retried(service: Service, first: str) -> list[str]:
    """Return the runs that the service made of that one."""
    return [run.id for run in service.runs() if run.parent == first]


def test_a_service_follows_one_that_was_killed_whole(place: Place) -> None:
    """Guard and all: what was left is ended, and the cut-off run is tried again."""
    home, service = place.home, place.service().start()
    try:
        run_id = service.launch(CONVERSION)
        wait_until(lambda: bool(of_role(home, "step")), "no step began")
        kill([*of_role(home, "guard"), *of_role(home, "supervisor")])
        service.kill()
        orphans = of_role(home, "run worker")
        assert orphans  # without a guard they go on
        began = time.monotonic()
        service.start()
        assert READY in service.output
        assert time.monotonic() - began < 240
        assert left(orphans, 0) == []
        assert service.run(run_id).status == "FAILURE"
        wait_until(lambda: bool(retried(service, run_id)), "the run is not tried again")
        assert service.wait(retried(service, run_id)[0]) == "SUCCESS"
        assert service.stop(signal.SIGINT) == 0
        assert left(processes(home), 1) == []
    finally:
        service.kill()
