"""Stage 4: every variant measured on every kernel of the model file, and judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quantmint.assets.assay.bench import Bench, shared_logits
from quantmint.assets.assay.gates import check_agreement, check_chat, check_divergence, check_tasks
from quantmint.assets.assay.measured import Quality, measure_fp16, measure_variant, need_logits
from quantmint.assets.assay.on_kernel import measure_on
from quantmint.assets.assay.record import Assayed, keep, with_kernel, with_quality
from quantmint.assets.variants import Struck
from quantmint.assets.verdict import Verdict
from quantmint.errors import BuildError, IntegrityError
from quantmint.native.build import Bundle
from quantmint.native.host import cpu_name
from quantmint.registry.store import Blob

LOADS = "loads"
AGREEMENT = "agreement"
QUALITY_CHECKS = (LOADS, "divergence", "tasks", "chat")


@dataclass(frozen=True, slots=True)
class Assay:
    """One record, and the object in the store that holds it."""

    record: Assayed
    blob: Blob


def assay(
    bench: Bench,
    struck: Sequence[Struck],
    bundles: Sequence[Bundle],
    reference: Bundle | None,
    planned: Mapping[str, Verdict],
    *,
    watch: Callable[[Assayed], Verdict] | None = None,
) -> Iterator[Assay]:
    """Measure and judge each variant on each kernel; quality on the last of `bundles`.

    `planned` holds what the check of a variant's header said: it is one more gate. A variant that
    does not load or is refused is recorded with its reason and does not end the assay. `watch`
    compares a record with earlier ones and gives the last verdict.

    Raises:
        IntegrityError, BuildError, UserError: the FP16 file itself can't be measured.
    """
    with shared_logits(bench) as folder:
        fp16 = measure_fp16(bench, folder)
        for variant in struck:
            header = planned[variant.variant]
            for bundle in bundles:
                # A file that is not as planned is shown to no native parser.
                record = (
                    _one(bench, variant, bundle, reference, fp16, folder)
                    if header.passed
                    else Assayed(**_identity(bench, variant, bundle))
                )
                record = replace(record, verdicts=(header, *record.verdicts))
                if watch is not None:
                    record = replace(record, verdicts=(*record.verdicts, watch(record)))
                bench.mint.report(_said(record))
                yield Assay(record, keep(bench.mint.store, record))


def _one(
    bench: Bench,
    struck: Struck,
    bundle: Bundle,
    reference: Bundle | None,
    fp16: Quality,
    folder: Path,
) -> Assayed:
    fields = _identity(bench, struck, bundle)
    checks: list[Verdict] = []
    measured_here = bundle.kernel.name == bench.bundle.kernel.name
    if measured_here:
        need_logits(bench, struck.blob, folder)  # what fails here is no fault of the variant
    try:
        if measured_here:
            quality = measure_variant(bench, struck.variant, struck.blob, folder)
            fields |= with_quality(quality, fp16)
            checks += _judge(bench, struck.variant, quality, fp16)
        on = measure_on(bench, bundle, reference, struck.variant, struck.blob)
        fields |= with_kernel(on)
    except (IntegrityError, BuildError) as error:
        return Assayed(**fields, verdicts=(Verdict(LOADS, False, str(error)), *checks))
    if on.agreement is not None:
        checks.append(check_agreement(bench.recipe.gates, on.agreement))
    speed = on.speeds.generation[-1].median if on.speeds.generation else 0.0
    loads = Verdict(LOADS, True, f"loads and runs: {speed:.0f} tokens/s generated")
    return Assayed(**fields, verdicts=(loads, *checks))


def _judge(bench: Bench, variant: str, quality: Quality, fp16: Quality) -> list[Verdict]:
    gates = bench.recipe.gates
    return [
        check_divergence(variant, gates, quality.divergences),
        check_tasks(variant, gates, quality.choices(fp16)),
        check_chat(gates, quality.replies, fp16.replies),
    ]


def _identity(bench: Bench, struck: Struck, bundle: Bundle) -> dict[str, Any]:
    return {
        "model": bench.recipe.model,
        "variant": struck.variant,
        "file": bench.recipe.file_name(struck.variant),
        "kernel": bundle.kernel.name,
        "cpu": cpu_name(),
        "threads": bench.mint.threads,
        "size": struck.header.size,
        "bits_per_weight": struck.header.bits_per_weight,
        "digests": {
            **bench.lineage,
            **bench.inputs,
            "gguf": struck.blob.sha256,
            "kernel": bundle.tree.sha256,
        },
    }


def _said(record: Assayed) -> str:
    reasons = record.withheld
    how = f"withheld: {'; '.join(reasons)}" if reasons else "passed"
    return f"{record.variant} on {record.kernel}: {how}"
