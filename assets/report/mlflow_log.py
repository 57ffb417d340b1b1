"""The report in MLflow: a run for each variant below the build's, figures, lineage."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from quantmint.assets.report.mlflow_versions import (
    CANDIDATE,
    DIGEST,
    STATE,
    VARIANT,
    WITHHELD,
    external_model,
    register,
)
from quantmint.assets.report.model import ModelReport, VariantRow
from quantmint.assets.tracking import (
    Entry,
    Tracked,
    build_run,
    experiment_of,
    tracked,
    write,
)
from quantmint.home import Home
from quantmint.registry.store import Blob, Store

if TYPE_CHECKING:
    from mlflow import MlflowClient as Client
    from mlflow.entities import DatasetInput

REPORT: Final = "digest.report"
# MLflow keeps 36 characters of a dataset's digest; the whole one stands in its source.
DATASET_DIGEST: Final = 36


def log_report(
    home: Home, store: Store, report: ModelReport, files: Mapping[str, Blob], dagster_run: str
) -> Tracked | None:
    """Log a report and its `write_report` files to the MLflow run of that build.

    The same report of the same build is logged once. Returns the build's run, None when tracking
    is off or can't be reached (see `tracking.tracked`).
    """

    def log(client: Client) -> Tracked:
        experiment = experiment_of(client, home, report.model)
        parent = build_run(client, experiment, report.model, dagster_run)
        digest = files["report.json"].sha256
        if client.get_run(parent).data.tags.get(REPORT) != digest:
            _log_inputs(client, parent, report)
            for row in report.rows:
                _log_variant(client, experiment, parent, report, row)
            _log_files(client, store, parent, files)
            # The digest comes last: killed before, all of it is logged again.
            write(client, parent, _build_entry(report, digest))
            client.set_terminated(parent, "FINISHED")
        return Tracked(parent, experiment)

    return tracked(home, log)


def metrics_of(row: VariantRow) -> dict[str, float]:
    """Return a variant's numbers under names that stay the same from build to build."""
    found: dict[str, float] = {
        "size": row.size, "bits_per_weight": row.bits_per_weight,
        "passed": float(not row.withheld), "pareto": float(row.pareto),
    }  # fmt: skip
    measures = ("ppl", "ppl_error", "ppl_ratio", "ppl_ratio_error", "kld_mean", "kld_error",
                "kld_p99", "kld_p999", "kld_max", "top1", "top1_error", "rms_dp")  # fmt: skip
    for at in row.divergences:
        found |= {f"{name}_{at.context}": getattr(at, name) for name in measures}
    for task in row.choices:
        found[f"{task.task}_accuracy"] = task.correct / task.items
        found[f"{task.task}_difference"] = task.difference
    for memory in row.memory:
        found[f"memory_{memory.context}"] = memory.total
    if row.peak is not None:
        found["peak_memory"] = row.peak.resident
    for on in row.kernels:
        for kind in ("prompt", "generation") if on.speeds is not None else ():
            rows = getattr(on.speeds, kind)
            found |= {f"{kind}_tps_{at.tokens}.{on.kernel}": at.median for at in rows}
        if on.agreement is not None:
            found[f"nmse.{on.kernel}"] = on.agreement.nmse
            found[f"same_top1.{on.kernel}"] = on.agreement.top1
    return found


def _log_variant(
    client: Client,
    experiment: str,
    parent: str,
    report: ModelReport,
    row: VariantRow,
) -> None:
    from mlflow.entities import LoggedModelOutput

    run_id = _child(client, experiment, parent, report, row)
    model_id = external_model(client, experiment, run_id, report, row)
    write(client, run_id, _variant_entry(report, row), model_id=model_id)
    client.log_inputs(run_id, datasets=[_text_input(report)])
    outputs = client.get_run(run_id).outputs
    if model_id not in {made.model_id for made in (outputs.model_outputs if outputs else ())}:
        client.log_outputs(run_id, [LoggedModelOutput(model_id, 0)])  # twice is an error
    client.set_terminated(run_id, "FINISHED")
    register(client, run_id, model_id, report, row)


def _child(
    client: Client,
    experiment: str,
    parent: str,
    report: ModelReport,
    row: VariantRow,
) -> str:
    wanted = f"tags.`mlflow.parentRunId` = '{parent}' AND tags.`{VARIANT}` = '{row.variant}'"
    found = client.search_runs([experiment], filter_string=wanted, max_results=1)
    if found:
        return str(found[0].info.run_id)
    tags = {"mlflow.parentRunId": parent, VARIANT: row.variant, "quantmint.model": report.model}
    made = client.create_run(experiment, run_name=f"{report.model}/{row.variant}", tags=tags)
    return str(made.info.run_id)


def _variant_entry(report: ModelReport, row: VariantRow) -> Entry:
    about = report.about
    return Entry(
        params={
            "variant": row.variant, "file": row.file, "kernel": about.kernel,
            "contexts": ",".join(map(str, report.contexts)), "llama.cpp": about.llama_cpp,
            "source_commit": about.commit,
            "machine": ", ".join(sorted({f"{on.cpu} x {on.threads}" for on in row.kernels})),
        },
        metrics=metrics_of(row),
        tags={
            DIGEST: row.sha256, STATE: WITHHELD if row.withheld else CANDIDATE,
            "quantmint.withheld": "; ".join(row.withheld),
            **{f"digest.{name}": value for name, value in _digests(report).items()},
        },
    )  # fmt: skip


def _build_entry(report: ModelReport, digest: str) -> Entry:
    base = {f"fp16_ppl_{at.context}": at.ppl for at in report.base}
    return Entry(
        params={},
        metrics={"passed": len(report.passed), "withheld": len(report.withheld), **base},
        tags={
            "llama.cpp.commit": report.about.llama_cpp,
            "llama.cpp.release": report.about.llama_cpp_release,
            "quantmint.withheld": ", ".join(row.variant for row in report.withheld),
            **{f"digest.{name}": value for name, value in _digests(report).items()},
            **{
                f"digest.kernel.{on.kernel}": on.digest for row in report.rows for on in row.kernels
            },
            REPORT: digest,
        },
    )


def _digests(report: ModelReport) -> dict[str, str]:
    about = report.about
    found = {
        "source_weights": about.source_sha256, "fp16_gguf": report.digests["fp16"],
        "assay_text": report.digests["text"], "calibration_text": about.calibration,
        "imatrix": about.imatrix,
    }  # fmt: skip
    return {name: value for name, value in found.items() if value}


def _log_inputs(client: Client, run_id: str, report: ModelReport) -> None:
    about = report.about
    found = [_dataset(about.source, about.source_sha256, about.origin, "source-weights")]
    found.append(_text_input(report))
    if about.calibration is not None:
        found.append(_dataset("calibration text", about.calibration, "", "calibration"))
    client.log_inputs(run_id, datasets=found)


def _text_input(report: ModelReport) -> DatasetInput:
    return _dataset("assay text", report.digests["text"], "", "assay")


def _dataset(name: str, sha256: str, uri: str, context: str) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": uri or f"sha256:{sha256}", "sha256": sha256}, sort_keys=True)
    kind = "http" if uri.startswith("http") else "local"
    return DatasetInput(
        Dataset(name[:500], sha256[:DATASET_DIGEST], kind, source),
        tags=[InputTag("mlflow.data.context", context)],
    )


def _log_files(client: Client, store: Store, run_id: str, files: Mapping[str, Blob]) -> None:
    with TemporaryDirectory(prefix="quantmint-") as folder:
        for name, blob in files.items():
            path = Path(folder) / name
            path.write_bytes(store.read(blob))
            is_figure = path.suffix in {".png", ".svg"}
            client.log_artifact(run_id, str(path), "figures" if is_figure else None)
