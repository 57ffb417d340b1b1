"""Variants as manifests have them: measured values of exactly the bytes that are published."""

from __future__ import annotations

import math
from dataclasses import asdict

from quantmint.assets.assay.gates import WIDER
from quantmint.assets.assay.record import Assayed
from quantmint.assets.mint import Mint
from quantmint.assets.recipe import Gates
from quantmint.assets.release.described import one_line
from quantmint.assets.release.inputs import Inputs
from quantmint.assets.release.judging import Judged
from quantmint.native.evaluation import results
from quantmint.native.evaluation.facts import number, predict_memory
from quantmint.registry.actions import Action, Outcome, perform
from quantmint.registry.gguf import Gguf
from quantmint.registry.manifest.measured import (
    Agreement,
    Choices,
    Divergence,
    Gate,
    MemoryAt,
    OnKernel,
    SpeedAt,
)
from quantmint.registry.manifest.release import TENSORS_FOLDER, Variant, Withheld
from quantmint.registry.manifest.types import FileEntry
from quantmint.registry.store import Blob
from quantmint.registry.tensors import make_table, table_bytes

FULL = "F16"


def variant_of(mint: Mint, inputs: Inputs, judged: Judged) -> tuple[Variant, dict[str, Blob]]:
    """Return a variant's row in the manifest, and its files by their paths in the release."""
    quality, struck = judged.quality, judged.struck
    layers = inputs.recipe.assay.gpu_layers
    files = _files(mint, struck.variant, quality.file, struck.blob)
    file, table = _entries(files)
    row = Variant(
        variant=struck.variant,
        file=file,
        tensors=table,
        weights=struck.header.weights,
        bits_per_weight=quality.bits_per_weight,
        memory=_memory(struck.header, quality),
        divergence=_divergences(quality),
        choices=tuple(Choices(**asdict(choice)) for choice in quality.choices),
        kernels=tuple(_on_kernel(record, layers) for record in judged.records),
        gates=tuple(Gate(check=v.check, reason=one_line(v.reason)) for v in judged.verdicts),
    )
    return row, files


def full_variant(mint: Mint, inputs: Inputs) -> tuple[Variant, dict[str, Blob]]:
    """Return the 16-bit file's row: what all others were struck from and compared with."""
    fp16 = inputs.fp16
    files = _files(mint, FULL, inputs.recipe.file_name(FULL), fp16.blob)
    file, table = _entries(files)
    row = Variant(
        variant=FULL,
        file=file,
        tensors=table,
        weights=fp16.header.weights,
        bits_per_weight=fp16.header.bits_per_weight,
        gates=(Gate(check="reference", reason="what all variants were struck from"),),
    )
    return row, files


def withheld_of(mint: Mint, judged: Judged) -> Withheld:
    """Return a variant that was made and is not published, with the reason."""
    # A crash is told with the path of its log, which is nobody else's business.
    reason = "; ".join(judged.withheld).replace(str(mint.home.root), "QUANTMINT_HOME")
    for key in Gates.model_fields:  # advice to the publisher
        reason = reason.replace(f": {WIDER.format(key=key)}", "")
    return Withheld(
        variant=judged.struck.variant,
        reason=one_line(reason),
        divergence=_divergences(judged.quality),
    )


def _memory(header: Gguf, quality: Assayed) -> tuple[MemoryAt, ...]:
    """Return what it takes at the recorded contexts, none longer than the model's own."""
    longest = number(header, "context_length") or max(at.context for at in quality.memory)
    contexts = sorted({min(at.context, longest) for at in quality.memory})
    return tuple(MemoryAt(**asdict(predict_memory(header, context))) for context in contexts)


def _divergences(quality: Assayed) -> tuple[Divergence, ...]:
    """Return what was measured; what is no number has no place in a signed document."""
    rows = (asdict(at) for at in quality.divergences)
    finite = [r for r in rows if all(math.isfinite(v) for v in r.values() if isinstance(v, float))]
    return tuple(Divergence(**row) for row in finite)


def _on_kernel(record: Assayed, gpu_layers: int) -> OnKernel:
    speeds = record.speeds or results.Speeds((), ())
    return OnKernel(
        kernel=record.kernel,
        cpu=one_line(record.cpu),
        threads=record.threads,
        gpu_layers=gpu_layers,
        prompt=tuple(SpeedAt(**asdict(at)) for at in speeds.prompt),
        generation=tuple(SpeedAt(**asdict(at)) for at in speeds.generation),
        agreement=Agreement(**asdict(record.agreement)) if record.agreement else None,
    )


def _files(mint: Mint, variant: str, name: str, blob: Blob) -> dict[str, Blob]:
    """Return the file and its table of tensors; the table is made once per bytes and name."""

    def make() -> Outcome:
        table = make_table(mint.store.path(blob.sha256), name, blob.sha256)
        return Outcome(outputs={"table": mint.store.put_bytes(table_bytes(table))})

    action = Action(
        name="tensor-table", inputs={"gguf": blob.sha256}, tools={}, arguments={"file": name}
    )
    table = perform(mint.store, action, make).outputs["table"]
    return {name: blob, f"{TENSORS_FOLDER}/{variant}.json": table}


def _entries(files: dict[str, Blob]) -> tuple[FileEntry, FileEntry]:
    """Return the entries of a file and of its table."""
    file, table = (
        FileEntry(path=path, size=blob.size, sha256=blob.sha256) for path, blob in files.items()
    )
    return file, table
