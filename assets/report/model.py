"""The report of a model as data: what each page, card, plot and MLflow entry is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from quantmint.assets.assay.record import Assayed
from quantmint.assets.verdict import Verdict
from quantmint.errors import BugError, IntegrityError
from quantmint.native.evaluation.results import (
    Agreement,
    BasePerplexity,
    Choices,
    Divergence,
    MemoryAt,
    Peak,
    Reply,
    Speeds,
)

FORMAT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What the assay records do not say of a model.

    `kernel` is the one that quality was measured on; `source` a repository, path or package and
    `origin` where it lies; `commit` the source's; `fp16_size` counts bytes. `llama_cpp` is a
    commit, `llama_cpp_release` the package and version that brought it. `calibration` and
    `imatrix` are the sha256 of the calibration text and of the matrix, if one was used. `date` is
    what a reader is told (ISO 8601), `build` the Dagster run.
    """

    title: str
    kernel: str
    source: str
    origin: str
    commit: str
    source_sha256: str
    fp16_size: int
    llama_cpp: str
    llama_cpp_release: str
    date: str
    build: str = ""
    calibration: str | None = None
    imatrix: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OnKernel:
    """A variant on one kernel; `digest` is that of the kernel's bundle, `record` of the record.

    `withheld` says why it must not be used there: empty where it may.
    """

    kernel: str
    cpu: str
    threads: int
    digest: str
    agreement: Agreement | None
    speeds: Speeds | None
    withheld: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantRow:
    """One variant: its quality on the kernel for that, and speed and agreement on each kernel.

    `size` counts bytes. `pareto` says that no variant that passed is both as small and as close
    to FP16.
    """

    variant: str
    file: str
    size: int
    bits_per_weight: float
    sha256: str
    divergences: tuple[Divergence, ...]
    choices: tuple[Choices, ...]
    replies: tuple[Reply, ...]
    memory: tuple[MemoryAt, ...]
    peak: Peak | None
    gates: tuple[Verdict, ...]
    withheld: tuple[str, ...]
    kernels: tuple[OnKernel, ...]
    pareto: bool

    @property
    def kld(self) -> float | None:
        """Mean KL divergence to FP16 at the first context, in nats."""
        return self.divergences[0].kld_mean if self.divergences else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReport:
    """A model's report. `rows` stand from the largest file to the smallest.

    `digests` are the sha256 of the FP16 file (`fp16`) and of the assay's text (`text`).
    """

    model: str
    about: About
    digests: Mapping[str, str]
    base: tuple[BasePerplexity, ...]
    rows: tuple[VariantRow, ...]

    @property
    def contexts(self) -> tuple[int, ...]:
        """The context lengths that quality was measured at, in tokens."""
        return tuple(sorted({at.context for row in self.rows for at in row.divergences}))

    @property
    def kernels(self) -> tuple[str, ...]:
        """The kernels that variants were measured on, in the records' order."""
        return tuple(dict.fromkeys(on.kernel for row in self.rows for on in row.kernels))

    @property
    def passed(self) -> tuple[VariantRow, ...]:
        """The variants that may be released."""
        return tuple(row for row in self.rows if not row.withheld)

    @property
    def withheld(self) -> tuple[VariantRow, ...]:
        """The variants that may not."""
        return tuple(row for row in self.rows if row.withheld)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain values, with the number of their format."""
        return {"report": FORMAT, **asdict(self)}


def build_report(records: Sequence[Assayed], about: About) -> ModelReport:
    """Put the records of all variants and kernels of one model together.

    Raises:
        BugError: there is none, or they are of several models.
        IntegrityError: they were measured against different FP16 files or texts, or a variant's
            are of different bytes.
    """
    if not records:
        raise BugError(f"{about.title}: a report of nothing")
    one = {name: _one(records, name) for name in ("fp16", "text")}
    models = {record.model for record in records}
    if len(models) != 1:
        raise BugError(f"a report of several models: {sorted(models)}")
    by_variant: dict[str, list[Assayed]] = {}
    for record in records:
        by_variant.setdefault(record.variant, []).append(record)
    rows = [_row(group, about.kernel) for group in by_variant.values()]
    front = _front(rows)
    return ModelReport(
        model=models.pop(),
        about=about,
        digests=one,
        base=next((record.base for record in records if record.base), ()),
        rows=tuple(
            _row(by_variant[row.variant], about.kernel, pareto=row.variant in front)
            for row in sorted(rows, key=lambda row: (-row.size, row.variant))
        ),
    )


def _one(records: Sequence[Assayed], name: str, of: str = "") -> str:
    found = {record.digests[name] for record in records}
    if len(found) != 1:
        raise IntegrityError(
            f"{records[0].model}{of}: records of {len(found)} different {name} digests: "
            f"{', '.join(sorted(found))}; they can't be compared",
            mend=f"measure all of it anew: quantmint build {records[0].model}",
        )
    return found.pop()


def _row(records: Sequence[Assayed], kernel: str, *, pareto: bool = False) -> VariantRow:
    quality = next((r for r in records if r.kernel == kernel), records[-1])
    return VariantRow(
        variant=quality.variant, file=quality.file, size=quality.size,
        bits_per_weight=quality.bits_per_weight,
        sha256=_one(records, "gguf", f" {quality.variant}"),
        divergences=quality.divergences, choices=quality.choices, replies=quality.replies,
        memory=quality.memory, peak=quality.peak, gates=quality.verdicts,
        withheld=quality.withheld, kernels=tuple(_on(record) for record in records),
        pareto=pareto,
    )  # fmt: skip


def _on(record: Assayed) -> OnKernel:
    return OnKernel(
        kernel=record.kernel, cpu=record.cpu, threads=record.threads,
        digest=record.digests["kernel"], agreement=record.agreement, speeds=record.speeds,
        withheld=record.withheld,
    )  # fmt: skip


def _front(rows: Sequence[VariantRow]) -> set[str]:
    """Return the variants on the Pareto front of size and divergence, withheld ones left out."""
    front: set[str] = set()
    best = float("inf")
    fit = [(row.size, row.kld, row.variant) for row in rows if row.kld is not None]
    passed = {row.variant for row in rows if not row.withheld}
    for _, kld, variant in sorted(fit):
        if variant in passed and kld < best:
            front.add(variant)
            best = kld
    return front
