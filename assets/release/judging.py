"""Judging again: records compared with the bytes at hand, gates as the model file has them now.

A check that blocked another run counts for nothing here: what is published is decided from the
records alone, and a record counts only for exactly the bytes that it names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from quantmint.assets.assay.bench import Bench, open_bench, shared_logits
from quantmint.assets.assay.gates import check_agreement, check_chat, check_divergence, check_tasks
from quantmint.assets.assay.measured import Quality, measure_fp16
from quantmint.assets.assay.record import Assayed
from quantmint.assets.assay.stage import AGREEMENT, LOADS, QUALITY_CHECKS
from quantmint.assets.mint import Mint
from quantmint.assets.planned import HEADER, check_header
from quantmint.assets.release.inputs import Inputs
from quantmint.assets.variants import Struck
from quantmint.assets.verdict import Verdict
from quantmint.errors import IntegrityError, UserError

AGAIN: Final = frozenset({HEADER, AGREEMENT, *QUALITY_CHECKS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One variant: its bytes, its records with verdicts as judged now, and why it is withheld."""

    struck: Struck
    quality: Assayed
    records: tuple[Assayed, ...]

    @property
    def withheld(self) -> tuple[str, ...]:
        """The reasons; empty if it may be published."""
        reasons = list(self.quality.withheld)
        for record in self.records:
            on = f"{record.kernel}: "
            reasons += [on + why for why in record.withheld if why not in self.quality.withheld]
        return tuple(reasons)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """All checks of it, those of further kernels named after them."""
        others = [
            replace(verdict, check=f"{verdict.check} on {record.kernel}")
            for record in self.records
            if record is not self.quality
            for verdict in record.verdicts
            if verdict.check != HEADER
        ]
        return (*self.quality.verdicts, *others)


def judge(mint: Mint, inputs: Inputs) -> tuple[Judged, ...]:
    """Judge every variant of the model file again, in its order.

    Raises:
        IntegrityError: a record is about other bytes than those at hand, a kernel failed its own
            assay, or no variant passed.
        UserError: records are missing, or were measured at other contexts or texts.
    """
    check_kernels(inputs)
    bench = open_bench(mint, inputs.recipe, inputs.base, inputs.fp16, inputs.bundle)
    with shared_logits(bench) as folder:
        fp16 = measure_fp16(bench, folder)  # out of the action cache, unless it was lost
    judged = tuple(_one(bench, inputs, struck, fp16) for struck in inputs.struck)
    if all(one.withheld for one in judged):
        said = "\n".join(f"  {one.struck.variant}: {one.withheld[0]}" for one in judged)
        raise IntegrityError(
            f"no variant of {inputs.recipe.model} passed its gates; nothing is released:\n{said}",
            mend="mend the source or the gates, then build again",
        )
    return judged


def check_kernels(inputs: Inputs) -> None:
    """Refuse measurements of a kernel that computes something else than plain scalar code.

    Raises:
        IntegrityError: a kernel of the model file failed its own assay.
    """
    for bundle in inputs.bundles:
        found = inputs.kernel_assays.get(bundle.kernel.name)
        if found is not None and not found.verdict.passed:
            raise IntegrityError(
                f"kernel {bundle.kernel.name} failed its own assay, so nothing measured on it "
                f"counts: {found.verdict.reason}",
                mend="name other kernels in `assay: {kernels: [...]}`, then build again",
            )


def _one(bench: Bench, inputs: Inputs, struck: Struck, fp16: Quality) -> Judged:
    records = [r for r in inputs.records if r.variant == struck.variant]
    kernels = {bundle.kernel.name: bundle.tree.sha256 for bundle in inputs.bundles}
    for record in records:
        _check_bound(bench, inputs, struck, record, kernels)
    missing = set(kernels) - {record.kernel for record in records}
    if missing:
        raise _stale(bench, f"{struck.variant} was not assayed on {', '.join(sorted(missing))}")
    header = check_header(inputs.recipe, struck, inputs.fp16)
    again = [_judged_record(bench, record, fp16, header) for record in records]
    quality = next(r for r in again if r.kernel == inputs.bundle.kernel.name)
    return Judged(struck=struck, quality=quality, records=tuple(again))


def _check_bound(
    bench: Bench, inputs: Inputs, struck: Struck, record: Assayed, kernels: Mapping[str, str]
) -> None:
    """Compare every digest in a record with what is at hand."""
    wanted = {**bench.inputs, "gguf": struck.blob.sha256, "source": inputs.source.blob.sha256}
    if inputs.calibration is not None:
        wanted["calibration"] = inputs.calibration.text.sha256
    if record.kernel in kernels:
        wanted["kernel"] = kernels[record.kernel]
    other = [name for name, sha in wanted.items() if record.digests.get(name) != sha]
    named = (record.model, record.file, record.size)
    expected = (bench.recipe.model, bench.recipe.file_name(struck.variant), struck.blob.size)
    if other or named != expected:
        raise IntegrityError(
            f"the assay record of {struck.variant} on {record.kernel} is about other bytes than "
            f"those at hand (it differs in: {', '.join(other) or 'model, file or size'}); what was "
            "not tested is not published",
            mend=f"quantmint build {bench.recipe.model}",
        )


def _judged_record(bench: Bench, record: Assayed, fp16: Quality, header: Verdict) -> Assayed:
    return replace(record, verdicts=(header, *_verdicts(bench, record, fp16)))


def _verdicts(bench: Bench, record: Assayed, fp16: Quality) -> Iterator[Verdict]:
    gates, variant = bench.recipe.gates, record.variant
    # What needs more than the record (a comparison with the last pin, say) stays as it was said.
    yield from (v for v in record.verdicts if v.check not in AGAIN)
    loads = next((v for v in record.verdicts if v.check == LOADS), None)
    if loads is None or not loads.passed:
        # Not shown to a native parser, or it crashed there: nothing was measured.
        yield loads or Verdict(LOADS, False, "it was never loaded: its header was refused")
        return
    yield loads
    if record.kernel == bench.bundle.kernel.name:
        _check_measured(bench, record)
        yield check_divergence(variant, gates, record.divergences)
        yield check_tasks(variant, gates, record.choices)
        yield check_chat(gates, record.replies, fp16.replies)
    if record.agreement is not None:
        yield check_agreement(gates, record.agreement)


def _check_measured(bench: Bench, record: Assayed) -> None:
    """Refuse measurements at other contexts, tasks or prompts than the model file asks for now."""
    found: Sequence[object] = (
        sorted(at.context for at in record.divergences),
        sorted(choice.task for choice in record.choices),
        [reply.prompt for reply in record.replies],
    )
    wanted = (
        sorted(reading.context for reading in bench.readings),
        sorted(task.name for task in bench.tasks),
        list(bench.talk.prompts),
    )
    for what, ours, theirs in zip(("contexts", "tasks", "prompts"), wanted, found, strict=True):
        if ours != theirs:
            raise _stale(bench, f"{record.variant} was measured at {what} {theirs}, not {ours}")


def _stale(bench: Bench, why: str) -> UserError:
    return UserError(
        f"{why}: its measurements are out of date, and nothing is released",
        mend=f"quantmint build {bench.recipe.model}",
    )
