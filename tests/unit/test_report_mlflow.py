"""The report in a real MLflow database: runs, versions, aliases, lineage; what fails."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from assay_records import ABOUT, record, withheld
from quantmint.assets import tracking
from quantmint.assets.assay.record import Assayed
from quantmint.assets.report.files import write_report
from quantmint.assets.report.mlflow_log import log_report
from quantmint.assets.report.mlflow_versions import mark_released, mark_yanked
from quantmint.assets.report.model import build_report
from quantmint.home import Home
from quantmint.registry.store import Store

MODEL = "phi-3-nano"
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables and nothing else: making them takes seconds."""
    home = Home(tmp_path_factory.mktemp("template"))
    assert tracking.tracked(home, lambda client: client.search_experiments()) is not None
    return home.mlflow / "mlflow.db"


@pytest.fixture
def tracked_home(home: Home, template: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A home with an empty database, and no memory of databases that failed before."""
    monkeypatch.delenv("QUANTMINT_TRACKING", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(tracking, "_failed", set())
    home.mlflow.mkdir(parents=True)
    (home.mlflow / "mlflow.db").write_bytes(template.read_bytes())
    yield home


def logged(home: Home, store: Store, run: str, *records: Assayed) -> tracking.Tracked | None:
    report = build_report(records, ABOUT)
    return log_report(home, store, report, write_report(store, report), run)


def ask(home: Home, question: Any) -> Any:
    found = tracking.tracked(home, question)
    assert found is not None
    return found


def aliases(home: Home, variant: str) -> dict[str, str]:
    named = ask(home, lambda c: c.get_registered_model(f"{MODEL}-{variant}").aliases)
    return {alias: str(version) for alias, version in named.items()}


def versions(home: Home, variant: str) -> list[Any]:
    return list(ask(home, lambda c: c.search_model_versions(f"name = '{MODEL}-{variant}'")))


def test_a_build_is_a_run_with_a_run_below_it_for_each_variant(
    tracked_home: Home, store: Store
) -> None:
    made = logged(tracked_home, store, "build-1", record("Q8_0", "x64"), record("Q8_0"), withheld())
    assert made is not None
    runs = ask(tracked_home, lambda c: c.search_runs([made.experiment_id]))
    by_name = {run.info.run_name: run for run in runs}
    assert sorted(by_name) == ["phi-3-nano/Q2_K", "phi-3-nano/Q8_0", "phi-3-nano@build-1"]
    child, parent = by_name["phi-3-nano/Q8_0"], by_name["phi-3-nano@build-1"]
    assert child.data.tags["mlflow.parentRunId"] == made.run_id == parent.info.run_id
    assert {run.info.status for run in runs} == {"FINISHED"}
    metrics = child.data.metrics
    assert metrics["kld_mean_512"] == 0.00035
    assert metrics["top1_1024"] == 0.9851
    assert metrics["generation_tps_32.zen4"] == 1825.0
    assert metrics["nmse.x64"] == 1.2e-6
    assert metrics["agreement_accuracy"] == 36 / 44
    assert child.data.params["llama.cpp"] == ABOUT.llama_cpp
    assert by_name["phi-3-nano/Q2_K"].data.metrics["passed"] == 0.0
    assert parent.data.tags["digest.calibration_text"] == "c" * 64
    data = {d.dataset.name: d.dataset.digest for d in parent.inputs.dataset_inputs}
    assert data["embedded phi-3-nano"] == "5" * 36
    assert data["assay text"] == "7" * 36
    files = {f.path for f in ask(tracked_home, lambda c: c.list_artifacts(made.run_id))}
    assert files == {"figures", "report.html", "report.json", "report.md"}


def test_a_model_is_external_and_its_metrics_are_found_by_it(
    tracked_home: Home, store: Store
) -> None:
    made = logged(tracked_home, store, "build-1", record("Q8_0"), record("Q4_K_M"))
    assert made is not None
    best = ask(
        tracked_home,
        lambda c: c.search_logged_models(
            [made.experiment_id], filter_string="metrics.kld_mean_512 < 0.001"
        ),
    )
    assert [model.name for model in best] == ["phi-3-nano-Q8_0"]
    assert best[0].tags["gguf.sha256"] == record("Q8_0").digests["gguf"]
    kept = sum(p.stat().st_size for p in (tracked_home.mlflow / "artifacts" / "models").rglob("*"))
    assert kept < 50_000


def test_the_same_bytes_are_one_version_however_often_they_are_logged(
    tracked_home: Home, store: Store
) -> None:
    for run in ("build-1", "build-1", "build-2"):
        logged(tracked_home, store, run, record("Q8_0"), withheld("Q2_K"))
    assert [v.version for v in versions(tracked_home, "Q8_0")] in ([1], ["1"])
    assert aliases(tracked_home, "Q8_0") == {"candidate": "1"}
    assert aliases(tracked_home, "Q2_K") == {"withheld": "1"}
    assert versions(tracked_home, "Q2_K")[0].tags["quantmint.withheld"].startswith("chat: it says")
    experiment = ask(tracked_home, lambda c: c.get_experiment_by_name(MODEL).experiment_id)
    assert len(ask(tracked_home, lambda c: c.search_logged_models([experiment]))) == 2
    assert len(ask(tracked_home, lambda c: c.search_runs([experiment]))) == 6


def test_aliases_follow_what_passed_what_did_not_and_what_was_released(
    tracked_home: Home, store: Store
) -> None:
    good = record("Q4_K_M")
    logged(tracked_home, store, "build-1", good)
    assert mark_released(tracked_home, MODEL, {"Q4_K_M": good.digests["gguf"]}, "1")
    bad = withheld("Q4_K_M")
    bad = record("Q4_K_M", verdicts=bad.verdicts, digests={**bad.digests, "gguf": "b" * 64})
    logged(tracked_home, store, "build-2", bad)
    assert aliases(tracked_home, "Q4_K_M") == {"candidate": "1", "released": "1", "withheld": "2"}
    # A looser gate lets the second pass: it is withheld no more.
    logged(tracked_home, store, "build-3", record("Q4_K_M", digests=bad.digests))
    assert aliases(tracked_home, "Q4_K_M") == {"candidate": "2", "released": "1"}
    assert not mark_released(tracked_home, MODEL, {"Q4_K_M": "d" * 64}, "2")
    assert aliases(tracked_home, "Q4_K_M")["released"] == "1"


def test_a_withdrawn_release_keeps_no_alias(tracked_home: Home, store: Store) -> None:
    first, name = record("Q4_K_M"), f"{MODEL}-Q4_K_M"
    second = record("Q4_K_M", digests={**first.digests, "gguf": "b" * 64})
    logged(tracked_home, store, "build-1", first)
    assert mark_released(tracked_home, MODEL, {"Q4_K_M": first.digests["gguf"]}, "org/m@1")
    logged(tracked_home, store, "build-2", second)
    assert mark_released(tracked_home, MODEL, {"Q4_K_M": "b" * 64}, "org/m@2")
    assert aliases(tracked_home, "Q4_K_M")["released"] == "2"
    standing = {name: first.digests["gguf"]}
    assert mark_yanked(tracked_home, "org/m@2", "it says 2+2=5", standing)
    assert aliases(tracked_home, "Q4_K_M")["released"] == "1"
    tags = ask(tracked_home, lambda c: c.get_model_version(name, "2").tags)
    assert (tags["quantmint.state"], tags["quantmint.yanked"]) == ("yanked", "it says 2+2=5")
    # The next report of the same bytes does not make them a candidate again.
    logged(tracked_home, store, "build-3", second)
    tags = ask(tracked_home, lambda c: c.get_model_version(name, "2").tags)
    assert tags["quantmint.state"] == "yanked"
    assert mark_yanked(tracked_home, "org/m@1", "nor does this", {})
    assert "released" not in aliases(tracked_home, "Q4_K_M")


def test_a_report_joins_the_run_that_earlier_steps_of_the_build_began(
    tracked_home: Home, store: Store
) -> None:
    entry = tracking.Entry(params={"source": "x"}, metrics={"source/bytes": 3}, tags={"a": "b"})
    first = tracking.record(tracked_home, MODEL, "build-1", entry)
    assert logged(tracked_home, store, "build-1", record("Q8_0")) == first
    assert tracking.record(tracked_home, MODEL, "build-1", entry) == first


@pytest.mark.parametrize(
    "call", ["finalize_logged_model", "set_terminated", "create_model_version", "log_artifact"]
)
def test_what_was_cut_short_is_finished_by_the_same_again(
    tracked_home: Home, store: Store, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    from mlflow import MlflowClient

    def cut(*_: object, **__: object) -> None:
        raise OSError("cut short")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, call, cut)
        assert logged(tracked_home, store, "build-1", record("Q8_0")) is None
    monkeypatch.setattr(tracking, "_failed", set())
    made = logged(tracked_home, store, "build-1", record("Q8_0"))
    assert made is not None
    models = ask(tracked_home, lambda c: c.search_logged_models([made.experiment_id]))
    assert [str(model.status) for model in models] == ["READY"]
    runs = ask(tracked_home, lambda c: c.search_runs([made.experiment_id]))
    assert {run.info.run_name for run in runs} == {"phi-3-nano/Q8_0", "phi-3-nano@build-1"}
    assert len(runs) == 2
    assert aliases(tracked_home, "Q8_0") == {"candidate": "1"}


def test_a_locked_database_is_one_warning_and_fails_nothing(
    tracked_home: Home, store: Store, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(tracking, "LOCK_SECONDS", 0.1)
    entry = tracking.Entry(params={}, metrics={}, tags={})
    with closing(sqlite3.connect(tracked_home.mlflow / "mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with caplog.at_level(logging.WARNING, logger="quantmint"):
            assert tracking.record(tracked_home, MODEL, "build-1", entry) is None
            assert logged(tracked_home, store, "build-1", record("Q8_0")) is None
    assert len(caplog.records) == 1
    assert "database is locked" in caplog.text
    assert "QUANTMINT_TRACKING=off" in caplog.text


def test_what_is_no_database_and_a_server_that_is_gone_fail_nothing(
    tracked_home: Home, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tracked_home.mlflow / "mlflow.db").write_bytes(b"not a database" * 100)
    entry = tracking.Entry(params={}, metrics={}, tags={})
    assert tracking.record(tracked_home, MODEL, "build-1", entry) is None
    assert "file is not a database" in caplog.text
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert tracking.record(tracked_home, MODEL, "build-1", entry) is None
    assert "http://127.0.0.1:9" in caplog.text
    assert "secret" not in caplog.text


def test_tracking_can_be_switched_off(
    tracked_home: Home, store: Store, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setenv("QUANTMINT_TRACKING", "off")
    before = (tracked_home.mlflow / "mlflow.db").read_bytes()
    assert logged(tracked_home, store, "build-1", record("Q8_0")) is None
    assert not mark_released(tracked_home, MODEL, {"Q8_0": "a" * 64}, "1")
    assert (tracked_home.mlflow / "mlflow.db").read_bytes() == before
    assert not caplog.records
