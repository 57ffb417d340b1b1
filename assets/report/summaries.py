"""One line for each kind of artifact: the first that its asset page says."""

from __future__ import annotations

from quantmint.assets.assay.record import Assayed
from quantmint.assets.kernel_assay import KernelAssay
from quantmint.assets.report.model import ModelReport
from quantmint.assets.source import SourceWeights
from quantmint.assets.variants import Struck
from quantmint.files import human_bytes
from quantmint.native.build import Bundle
from quantmint.registry.gguf import Gguf


def source_summary(source: SourceWeights) -> str:
    """Return a source's architecture, weights and size."""
    kind = "checkpoint" if source.is_checkpoint else "GGUF file"
    return (
        f"{source.architecture} {kind}, {_millions(source.weights)} weights, "
        f"{human_bytes(source.size)}"
    )


def gguf_summary(header: Gguf) -> str:
    """Return a file's size, density and number of weights."""
    return (
        f"{human_bytes(header.size)}, {header.bits_per_weight:.2f} bits/weight, "
        f"{_millions(header.weights)} weights"
    )


def variant_summary(struck: Struck) -> str:
    """Return the same, and how many tensors fell back to another type, if any did."""
    fell = f", {struck.fallbacks} tensors fell back" if struck.fallbacks else ""
    return f"{gguf_summary(struck.header)}{fell}"


def kernel_summary(bundle: Bundle) -> str:
    """Return a kernel's size and how long its own code took to compile."""
    return (
        f"{human_bytes(bundle.tree.size)} in {len(bundle.tree.files)} files; "
        f"its own code took {bundle.kernel_seconds:.0f} s to compile"
    )


def kernel_assay_summary(found: KernelAssay) -> str:
    """Return whether a kernel agrees with plain scalar code, and how far."""
    return f"{'passed' if found.verdict.passed else 'WITHHELD'}: {found.verdict.reason}"


def assay_summary(record: Assayed) -> str:
    """Return whether a variant passed, and its main measurements; else the gates that refused.

    Their reasons are on the page of checks: a page breaks no long line.
    """
    if record.withheld:
        return f"WITHHELD: {', '.join(v.check for v in record.verdicts if v.refuses)}; see Checks"
    said = []
    if record.divergences:
        at = record.divergences[0]
        said.append(f"KLD {at.kld_mean:.5f}, PPL {100 * (at.ppl_ratio - 1):+.2f} %")
    if record.speeds is not None and record.speeds.generation:
        said.append(f"{record.speeds.generation[-1].median:.0f} t/s")
    return f"passed: {', '.join(said)}" if said else "passed"


def report_summary(report: ModelReport) -> str:
    """Return how many variants passed, and which did not."""
    said = f"{len(report.passed)} of {len(report.rows)} variants passed"
    withheld = ", ".join(row.variant for row in report.withheld)
    return f"{said}; withheld: {withheld}" if withheld else said


def _millions(weights: int) -> str:
    return f"{weights / 1e9:.2f} billion" if weights >= 1e9 else f"{weights / 1e6:.1f} million"
