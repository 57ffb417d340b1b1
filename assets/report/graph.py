"""What a person sees of an artifact: metadata for its asset page, and its entry in MLflow."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from quantmint.assets.assay.record import Assayed
from quantmint.assets.convert import Converted, converter_identity
from quantmint.assets.imatrix import Importance
from quantmint.assets.kernel_assay import KernelAssay
from quantmint.assets.recipe import Recipe
from quantmint.assets.report.files import HTML, JSON, MARKDOWN
from quantmint.assets.report.model import ModelReport
from quantmint.assets.report.summaries import (
    assay_summary,
    gguf_summary,
    kernel_assay_summary,
    kernel_summary,
    report_summary,
    source_summary,
    variant_summary,
)
from quantmint.assets.report.tables import Table, overview, quality, reasons, speed, tasks
from quantmint.assets.source import SourceWeights
from quantmint.assets.tracking import Entry
from quantmint.assets.variants import Struck
from quantmint.assets.verdict import Verdict
from quantmint.native.build import Bundle
from quantmint.native.evaluation.results import Divergence, SpeedAt
from quantmint.native.pin import current_pin
from quantmint.registry.gguf import Gguf
from quantmint.registry.store import Blob, Store

Metadata = dict[str, Any]
SUMMARY = "summary"


def kernel_metadata(bundle: Bundle) -> Metadata:
    """Return what the asset page of a kernel shows."""
    return {
        SUMMARY: kernel_summary(bundle),
        "sha256": bundle.tree.sha256,
        "size": bundle.tree.size,
        "files": _table([{"file": f.path, "bytes": f.blob.size} for f in bundle.tree.files]),
        "compile_seconds": round(bundle.seconds, 1),
        "kernel_compile_seconds": round(bundle.kernel_seconds, 1),
        "made_from": dg.MetadataValue.json(bundle.made_from),
        "cached": bundle.cached,
        "folder": dg.MetadataValue.path(str(bundle.folder)),
    }


def kernel_assay_metadata(found: KernelAssay, blob: Blob) -> Metadata:
    """Return what the asset page of a kernel's assay shows."""
    rows = [
        {
            "type": row.kind,
            "nmse": f"{row.agreement.nmse:.2e}" if row.agreement else "reference",
            "same top token": f"{row.agreement.top1:.1%}" if row.agreement else "reference",
            "same bits each run": row.same_runs,
            "same bits at each thread count": row.same_threads,
            "prompt tokens/s": _last(row.speeds.prompt),
            "generated tokens/s": _last(row.speeds.generation),
        }
        for row in found.rows
    ]
    made: Metadata = {
        SUMMARY: kernel_assay_summary(found),
        "sha256": blob.sha256,
        "size": blob.size,
        "cpu": found.cpu,
        "threads": found.threads,
        "worst_nmse": significant(found.worst),
        "types": _table(rows),
    }
    for kind, speeds in (("prompt", found.speeds.prompt), ("generation", found.speeds.generation)):
        for at in speeds:
            made[f"{kind}_{at.tokens}_tokens_per_second"] = round(at.median, 1)
            made[f"{kind}_{at.tokens}_spread"] = f"{at.low:.1f} to {at.high:.1f}"
    return made


def source_metadata(source: SourceWeights) -> Metadata:
    """Return what the asset page of source weights shows; later stages read it back."""
    return {
        SUMMARY: source_summary(source),
        "sha256": source.blob.sha256,
        "size": source.size,
        "weights": source.weights,
        "architecture": source.architecture,
        "commit": source.commit,
        "origin": dg.MetadataValue.url(source.origin)
        if source.origin.startswith("http")
        else dg.MetadataValue.path(source.origin),
        "is_checkpoint": source.is_checkpoint,
        "cached": source.cached,
    }


def gguf_metadata(header: Gguf) -> Metadata:
    """Return a GGUF file's facts: size, bits per weight, the table of tensor types."""
    types = [
        {"type": name, "tensors": count, "bytes": size, "share": f"{size / header.size:.1%}"}
        for name, (count, size) in header.type_table().items()
    ]
    return {
        "size": header.size,
        "bits_per_weight": round(header.bits_per_weight, 3),
        "weights": header.weights,
        "architecture": header.architecture,
        "tensor_types": _table(types),
        "tensors": len(header.tensors),
    }


def fp16_metadata(store: Store, made: Converted, source: SourceWeights) -> Metadata:
    """Return what the asset page of the FP16 file shows."""
    return {
        SUMMARY: gguf_summary(made.header),
        "sha256": made.blob.sha256,
        **gguf_metadata(made.header),
        "source_sha256": source.blob.sha256,
        "file": dg.MetadataValue.path(str(store.path(made.blob.sha256))),
        "cached": made.cached,
    }


def imatrix_metadata(made: Importance, path: Path) -> Metadata:
    """Return what the asset page of an importance matrix shows."""
    return {
        "sha256": made.blob.sha256,
        "size": made.blob.size,
        "text": made.text.origin,
        "text_sha256": made.text.blob.sha256,
        "chunks": made.chunks,
        "context": made.context,
        "tensors_with_data": made.entries,
        "experts_without_data": _table(
            [{"tensor": name, "experts": count} for name, count in made.partial.items()]
        ),
        "tensors_without_data": ", ".join(made.uncovered) or "none",
        "file": dg.MetadataValue.path(str(path)),
        "cached": made.cached,
    }


def imatrix_entry(made: Importance) -> Entry:
    """Return what MLflow keeps of the importance matrix."""
    return Entry(
        params={"imatrix/text": made.text.origin, "imatrix/chunks": made.chunks},
        metrics={"imatrix/tensors": made.entries},
        tags={
            "digest.imatrix": made.blob.sha256,
            "digest.calibration_text": made.text.blob.sha256,
        },
    )


def variant_metadata(struck: Struck, path: Path) -> Metadata:
    """Return what the asset page of a variant shows; the assay reads it back."""
    return {
        SUMMARY: variant_summary(struck),
        "sha256": struck.blob.sha256,
        **gguf_metadata(struck.header),
        "fallback_tensors": struck.fallbacks,
        "plan": struck.plan,
        "file": dg.MetadataValue.path(str(path)),
        "cached": struck.cached,
    }


def assay_metadata(record: Assayed, blob: Blob, path: Path) -> Metadata:
    """Return what the asset page of a variant on a kernel shows."""
    found: Metadata = {
        SUMMARY: assay_summary(record),
        "sha256": blob.sha256,
        "size": blob.size,
        "gguf_sha256": record.digests["gguf"],
        "visible_file": "none: withheld" if record.withheld else dg.MetadataValue.path(str(path)),
        "cpu": record.cpu,
        "gates": _table([{"gate": v.check, "passed": v.passed} for v in record.verdicts]),
        "reasons": dg.MetadataValue.md(_reasons(record.verdicts)),
    }
    if record.divergences:
        found["divergence"] = _table([_distance(row) for row in record.divergences])
        first = record.divergences[0]
        found |= {
            "perplexity": round(first.ppl, 4), "perplexity_ratio": round(first.ppl_ratio, 5),
            "kld": round(first.kld_mean, 6), "top1": round(first.top1, 5),
        }  # fmt: skip
    for task in record.choices:
        found[f"{task.task}_accuracy"] = round(task.correct / task.items, 4)
    if record.agreement is not None:
        found["nmse"] = significant(record.agreement.nmse)
        found["same_top1"] = significant(record.agreement.top1)
    if record.speeds is not None:
        for kind in ("prompt", "generation"):
            for speed in getattr(record.speeds, kind):
                found[f"{kind}_{speed.tokens}_tokens_per_second"] = round(speed.median, 1)
    for at in record.memory:
        found[f"memory_at_{at.context}"] = at.total
    if record.peak is not None:
        found["peak_memory"] = record.peak.resident
    if record.replies:
        first_reply = record.replies[0]
        found["sample"] = dg.MetadataValue.md(_sample(first_reply.rendered, first_reply.text))
        found["sample_text"] = first_reply.text
    return found


def report_metadata(
    report: ModelReport, files: Mapping[str, Blob], store: Store, folder: Path
) -> Metadata:
    """Return what the asset page of a report shows: its tables, its plots and where it lies.

    `files` are `write_report`'s; `folder` is where `show_report` let them appear.
    """
    head, *more = [overview(report), *quality(report)]
    found: Metadata = {
        SUMMARY: report_summary(report),
        "sha256": files[JSON].sha256,
        "size": files[JSON].size,
        "passed": len(report.passed),
        "withheld": len(report.withheld),
        "report": dg.MetadataValue.path(str(folder / HTML)),
        "report_markdown": dg.MetadataValue.path(str(folder / MARKDOWN)),
        "variants": _cells(head),
        **{f"quality_at_{c}": _cells(t) for c, t in zip(report.contexts, more, strict=True)},
    }
    for which, made in (("tasks", tasks(report)), ("speed", speed(report))):
        if made is not None:
            found[which] = _cells(made)
    if report.withheld:
        rows = [{"variant": which, "reason": reason} for which, reason in reasons(report)]
        found["withheld_because"] = _table(rows)
    for name in sorted(name for name in files if name.endswith(".png")):
        data = base64.b64encode(store.read(files[name])).decode()
        found[name] = dg.MetadataValue.md(f"![{name}](data:image/png;base64,{data})")
    return found


def significant(value: float) -> float:
    """Return a number as people read it: with six significant digits."""
    return float(f"{value:.6g}")


def _distance(row: Divergence) -> dict[str, Any]:
    """Return what a page has room for; the report has it all."""
    return {
        "context": row.context, "perplexity": significant(row.ppl),
        "ratio": significant(row.ppl_ratio), "mean KLD": significant(row.kld_mean),
        "99 % KLD": significant(row.kld_p99), "same top": f"{row.top1:.1%}",
    }  # fmt: skip


def _reasons(verdicts: Sequence[Verdict]) -> str:
    """Return what each gate said, one below the other."""
    words = {v.check: "passed" if v.passed else "FAILED" if v.refuses else "not made"
             for v in verdicts}  # fmt: skip
    return _fenced("\n".join(f"{words[v.check]}  {v.check}: {v.reason}" for v in verdicts))


def _last(speeds: Sequence[SpeedAt]) -> float:
    return round(speeds[-1].median, 1) if speeds else 0.0


def _cells(made: Table) -> Any:  # noqa: ANN401
    return _table([dict(zip(made.head, row, strict=True)) for row in made.rows])


def source_entry(recipe: Recipe, source: SourceWeights) -> Entry:
    """Return what MLflow keeps of the source."""
    return Entry(
        params={
            "source": str(recipe.source.model_dump(mode="json", exclude_defaults=True)),
            "source_commit": source.commit,
            "architecture": source.architecture,
        },
        metrics={"source/bytes": source.size, "source/weights": source.weights},
        tags={"digest.source_weights": source.blob.sha256},
    )


def fp16_entry(made: Converted, verdicts: Sequence[Verdict]) -> Entry:
    """Return what MLflow keeps of the conversion, the tools' identities included."""
    tools = {f"tool.{name}": value for name, value in converter_identity().items()}
    passed = {f"fp16_gguf/{v.check}": float(v.passed) for v in verdicts if v.made}
    return Entry(
        params={**tools, "tool.llama.cpp.commit": current_pin().commit},
        metrics={"fp16_gguf/bytes": made.header.size, **passed},
        tags={"digest.fp16_gguf": made.blob.sha256},
    )


def variant_entry(struck: Struck, verdict: Verdict) -> Entry:
    """Return what MLflow keeps of one variant's making."""
    name = struck.variant
    return Entry(
        params={},
        metrics={
            f"{name}/bytes": struck.header.size,
            f"{name}/bits_per_weight": struck.header.bits_per_weight,
            f"{name}/fallback_tensors": struck.fallbacks,
            f"{name}/header": float(verdict.passed),
        },
        tags={f"digest.{name}": struck.blob.sha256},
    )


def _table(rows: list[dict[str, Any]]) -> Any:  # noqa: ANN401
    if not rows:  # Dagster wants to know the columns of an empty table
        return dg.MetadataValue.text("none")
    return dg.MetadataValue.table(records=[dg.TableRecord(row) for row in rows])


def _sample(prompt: str, text: str) -> str:
    return _fenced(f"{prompt}\n---\n{text}")


def _fenced(text: str) -> str:
    """Return text as it is: nothing that a model or an upstream says is rendered."""
    body = text.replace("`", "'")
    return f"```text\n{body}\n```"
