"""What a person sees of an artifact: metadata for its asset page, and its entry in MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from quantmint.assets.convert import Converted, converter_identity
from quantmint.assets.recipe import Recipe
from quantmint.assets.source import SourceWeights
from quantmint.assets.tracking import Entry
from quantmint.assets.variants import Struck
from quantmint.assets.verdict import Verdict
from quantmint.native.build import Bundle
from quantmint.native.pin import current_pin
from quantmint.native.tools import Speed
from quantmint.registry.gguf import Gguf
from quantmint.registry.store import Store

Metadata = dict[str, Any]


def kernel_metadata(bundle: Bundle) -> Metadata:
    """Return what the asset page of a kernel shows."""
    return {
        "sha256": bundle.tree.sha256,
        "size": bundle.tree.size,
        "files": _table([{"file": f.path, "bytes": f.blob.size} for f in bundle.tree.files]),
        "compile_seconds": bundle.seconds,
        "cached": bundle.cached,
        "folder": dg.MetadataValue.path(str(bundle.folder)),
    }


def source_metadata(source: SourceWeights) -> Metadata:
    """Return what the asset page of source weights shows; later stages read it back."""
    return {
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
        "dagster/row_count": len(header.tensors),
    }


def fp16_metadata(store: Store, made: Converted, source: SourceWeights) -> Metadata:
    """Return what the asset page of the FP16 file shows."""
    return {
        "sha256": made.blob.sha256,
        **gguf_metadata(made.header),
        "source_sha256": source.blob.sha256,
        "file": dg.MetadataValue.path(str(store.path(made.blob.sha256))),
        "cached": made.cached,
    }


def variant_metadata(
    struck: Struck, verdicts: Sequence[Verdict], speed: Speed | None, link: Path
) -> Metadata:
    """Return what the asset page of a variant shows."""
    facts = {verdict.check: verdict.facts for verdict in verdicts}
    found: Metadata = {
        "sha256": struck.blob.sha256,
        **gguf_metadata(struck.header),
        "fallback_tensors": struck.fallbacks,
        "file": dg.MetadataValue.path(str(link)),
        "cached": struck.cached,
    }
    if "perplexity" in facts["perplexity"]:
        found["perplexity"] = round(facts["perplexity"]["perplexity"], 4)
        found["perplexity_ratio"] = facts["perplexity"]["ratio"]
    if speed is not None:
        found["prompt_tokens_per_second"] = speed.prompt
        found["generation_tokens_per_second"] = speed.generation
    if "text" in facts["chat"]:
        found["sample"] = dg.MetadataValue.md(_sample(facts["chat"]))
        found["sample_prompt"] = facts["chat"]["prompt"]
        found["sample_text"] = facts["chat"]["text"]
    return found


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


def fp16_entry(made: Converted, verdict: Verdict) -> Entry:
    """Return what MLflow keeps of the conversion, the tools' identities included."""
    tools = {f"tool.{name}": value for name, value in converter_identity().items()}
    return Entry(
        params={**tools, "tool.llama.cpp.commit": current_pin().commit},
        metrics={"fp16_gguf/bytes": made.header.size, "fp16_gguf/tokenizer": verdict.passed},
        tags={"digest.fp16_gguf": made.blob.sha256},
    )


def variant_entry(
    struck: Struck, verdicts: Sequence[Verdict], speed: Speed | None, kernel: str
) -> Entry:
    """Return what MLflow keeps of one variant."""
    name = struck.variant
    metrics: dict[str, float] = {
        f"{name}/bytes": struck.header.size,
        f"{name}/bits_per_weight": struck.header.bits_per_weight,
        f"{name}/fallback_tensors": struck.fallbacks,
        f"{name}/passed": float(all(verdict.passed for verdict in verdicts)),
    }
    for verdict in verdicts:
        if verdict.check == "perplexity" and "perplexity" in verdict.facts:
            metrics[f"{name}/perplexity"] = verdict.facts["perplexity"]
            metrics[f"{name}/perplexity_ratio"] = verdict.facts["ratio"]
    if speed is not None:
        metrics[f"{name}/prompt_tokens_per_second"] = speed.prompt
        metrics[f"{name}/generation_tokens_per_second"] = speed.generation
    return Entry(
        params={f"{name}/kernel": kernel},
        metrics=metrics,
        tags={f"digest.{name}": struck.blob.sha256},
    )


def _table(rows: list[dict[str, Any]]) -> Any:  # noqa: ANN401
    return dg.MetadataValue.table(records=[dg.TableRecord(row) for row in rows])


def _sample(chat: Any) -> str:  # noqa: ANN401
    """Return prompt and answer as fenced text, so that nothing a model says is rendered."""
    body = f"{chat['prompt']}\n---\n{chat['text']}".replace("`", "'")
    return f"```text\n{body}\n```"
