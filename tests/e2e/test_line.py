"""The whole line on the embedded model, by the command line, as a new user runs it."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import dagster as dg
import pytest

from helpers import Ran, run_in
from quantmint.assets.assay.record import load
from quantmint.files import sha256_of
from quantmint.home import Home
from quantmint.native.kernels import host_kernel
from quantmint.pipelines.instance import open_instance
from quantmint.registry import gguf
from quantmint.registry.store import Store

pytestmark = pytest.mark.e2e

VARIANTS = ["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K"]
Nano = tuple[Home, Ran]


def runs(home: Home) -> int:
    """Count the Dagster runs that the home remembers."""
    with open_instance(home) as instance:
        return instance.get_runs_count()


def value_of(home: Home, leaf: str, name: str) -> object:
    """Return one metadata value of the latest materialization."""
    with open_instance(home) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(["phi-3-nano", leaf]))
        assert event is not None and event.asset_materialization is not None
        return event.asset_materialization.metadata[name].value


def test_it_ends_with_a_table_and_an_answer(nano: Nano) -> None:
    _, ran = nano
    assert ran.code == 0, ran.err
    for variant in VARIANTS:
        rows = [row for row in ran.out.splitlines() if row.startswith(variant + " ")]
        assert rows[0].endswith("passed")
    assert "was asked: What does os.path.join do?" in ran.out
    assert "Traceback" not in ran.err


def test_files_are_whole_and_named_for_the_hub(nano: Nano) -> None:
    home, _ = nano
    for variant in VARIANTS:
        path = home.models / "phi-3-nano" / f"Phi-3-nano-{variant}.gguf"
        assert gguf.read(path).architecture == "phi3"
        assert sha256_of(path) == value_of(home, variant, "sha256")


def on_host(variant: str) -> str:
    """Return the leaf of a variant's assay on this machine's best kernel."""
    return f"{variant}_on_{host_kernel().name}"


def test_quality_orders_as_in_real_models(nano: Nano) -> None:
    home, _ = nano
    for measure in ("perplexity", "kld"):
        found = [value_of(home, on_host(variant), measure) for variant in VARIANTS]
        assert found == sorted(found, key=float)  # type: ignore[arg-type]
        assert found[-1] > found[0] * 1.02  # type: ignore[operator]


def test_both_sides_of_the_rope_switch_are_measured(nano: Nano) -> None:
    home, _ = nano
    store = Store(home.store)
    record = load(store, store.find(str(value_of(home, on_host("Q4_K_M"), "sha256"))))
    assert [(at.context, at.rope) for at in record.divergences] == [(512, "short"), (1024, "long")]
    assert record.withheld == ()
    assert record.digests["gguf"] == value_of(home, "Q4_K_M", "sha256")
    assert {task.task for task in record.choices} >= {"python-facts"}


def test_no_tensor_fell_back(nano: Nano) -> None:
    home, _ = nano
    assert {value_of(home, variant, "fallback_tensors") for variant in VARIANTS} == {0}


def test_one_mlflow_run_for_the_build_and_one_below_it_for_each_variant(nano: Nano) -> None:
    home, _ = nano
    with sqlite3.connect(home.mlflow / "mlflow.db") as database:
        rows = database.execute("select run_uuid, key, value from tags").fetchall()
        numbers = database.execute("select run_uuid, key, value from latest_metrics").fetchall()
        params = dict(database.execute("select key, value from params").fetchall())
    parents = {run: value for run, key, value in rows if key == "mlflow.parentRunId"}
    (build,) = set(parents.values())
    assert len(parents) == len(VARIANTS)
    tags = {key: value for run, key, value in rows if run == build}
    measured = {(run, key): value for run, key, value in numbers}
    of_variant = {v: run for run, key, v in rows if run in parents and key == "quantmint.variant"}
    for variant in VARIANTS:
        kld = measured[of_variant[variant], "kld_mean_512"]
        assert kld == pytest.approx(value_of(home, on_host(variant), "kld"), abs=1e-6)
        assert tags[f"digest.{variant}"] == value_of(home, variant, "sha256")
        assert str(value_of(home, variant, "mlflow_run")).endswith(f"/runs/{build}")
    assert params["tool.torch"]
    assert params["tool.llama.cpp.commit"]
    with open_instance(home) as instance:
        assert instance.has_run(tags["dagster.run_id"])


def test_mlflow_holds_no_model_bytes(nano: Nano) -> None:
    home, _ = nano
    size = sum(p.stat().st_size for p in home.mlflow.rglob("*") if p.is_file())
    assert size < 5_000_000


def test_a_second_build_builds_nothing_and_says_so(nano: Nano) -> None:
    home, _ = nano
    before = runs(home)
    again = run_in(home, "build", "phi-3-nano")
    assert again.code == 0, again.err
    assert "nothing to build" in again.out
    assert runs(home) == before
    plan = json.loads(run_in(home, "plan", "phi-3-nano", "--json").out)
    assert plan["needed"] == 0


def test_deleting_one_variant_rebuilds_that_one_alone(nano: Nano) -> None:
    home, _ = nano
    path = home.models / "phi-3-nano" / "Phi-3-nano-Q4_K_M.gguf"
    digest = sha256_of(path)
    path.unlink()
    Store(home.store).path(digest).unlink()
    ran = run_in(home, "build", "phi-3-nano", "--json")
    assert ran.code == 0, ran.err
    assert list(json.loads(ran.out)["made"]) == ["phi-3-nano/Q4_K_M"]
    assert sha256_of(path) == digest


def test_deleting_the_visible_file_puts_it_back(nano: Nano) -> None:
    home, _ = nano
    path = home.models / "phi-3-nano" / "Phi-3-nano-Q2_K.gguf"
    digest = sha256_of(path)
    path.unlink()
    ran = run_in(home, "build", "phi-3-nano")
    assert "put back from the store" in ran.err
    assert sha256_of(path) == digest


def test_the_store_is_sound(nano: Nano) -> None:
    home, _ = nano
    ran = run_in(home, "verify")
    assert ran.code == 0
    assert ", 0 faults" in ran.out
    assert list((home.store / "staging").iterdir()) == []


def test_a_model_of_ones_own_is_one_file(nano: Nano, tmp_path: Path) -> None:
    home, _ = nano
    file = tmp_path / "mine.yaml"
    fp16 = Store(home.store).path(str(value_of(home, "fp16_gguf", "sha256")))
    file.write_text(
        f"model: mine\nsource: {{gguf: {fp16}}}\nvariants: [Q4_K_S, IQ4_XS]\n"
        "assay: {chunks: 4, prompt: What does len do}\n"
    )
    ran = run_in(home, "build", str(file))
    assert ran.code == 0, ran.err
    assert (home.models / "mine" / "mine-IQ4_XS.gguf").is_file()


def test_a_failing_gate_withholds_the_variant_and_says_why(nano: Nano, tmp_path: Path) -> None:
    home, _ = nano
    file = tmp_path / "strict.yaml"
    fp16 = Store(home.store).path(str(value_of(home, "fp16_gguf", "sha256")))
    file.write_text(
        f"model: strict\nsource: {{gguf: {fp16}}}\nvariants: [Q8_0, Q2_K]\n"
        "assay: {chunks: 4}\ngates: {max_ppl_ratio: 1.005}\n"
    )
    ran = run_in(home, "build", str(file))
    assert ran.code == 5
    assert "Q2_K is withheld: divergence: perplexity ratio" in ran.out
    assert "the bound is 1.005" in ran.out
    assert not (home.models / "strict" / "strict-Q2_K.gguf").exists()
    assert (home.models / "strict" / "strict-Q8_0.gguf").is_file()
    kept = [row for row in ran.out.splitlines() if row.startswith("Q8_0 ")]
    assert kept[0].endswith("passed")
