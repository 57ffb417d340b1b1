"""Measurements as cached facts: one action for each file, read back as typed values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from quantmint.assets.assay.bench import Bench, have_logits
from quantmint.native.evaluation.engine import Evaluation, evaluate
from quantmint.native.evaluation.facts import predict_memory
from quantmint.native.evaluation.jobs import Jobs, Weighing
from quantmint.native.evaluation.results import (
    BasePerplexity,
    Choices,
    Divergence,
    MemoryAt,
    Peak,
    Reply,
    Scores,
)
from quantmint.registry import gguf
from quantmint.registry.actions import Action, Outcome, lookup, perform
from quantmint.registry.store import Blob

MEMORY_CONTEXTS: Final = (4096, 32768)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """What one file was measured at; `base` is filled for FP16, `divergences` for variants."""

    base: tuple[BasePerplexity, ...]
    divergences: tuple[Divergence, ...]
    scores: tuple[Scores, ...]
    replies: tuple[Reply, ...]
    peak: Peak | None
    memory: tuple[MemoryAt, ...]
    cached: bool

    def choices(self, fp16: Quality) -> tuple[Choices, ...]:
        """Return task accuracies, paired item by item with FP16's."""
        base = {scores.task: scores for scores in fp16.scores}
        from quantmint.native.evaluation.statistics import compare_choices

        return tuple(compare_choices(base[scores.task], scores) for scores in self.scores)


def measure_fp16(bench: Bench, folder: Path) -> Quality:
    """Measure the FP16 file itself, and write its logits into `folder` while doing so.

    Raises:
        IntegrityError: its logits hold NaN or infinity.
        BuildError: it does not load.
        UserError: the text is too short, or the disk too small.
    """
    action = Action(
        name="assay-fp16",
        inputs=bench.inputs,
        tools={"bundle": bench.bundle.tree.sha256},
        arguments=bench.arguments,
    )
    jobs = _jobs(bench, basing=True, folder=folder)
    return _perform(bench, action, bench.fp16.blob, "FP16", jobs)


def need_logits(bench: Bench, blob: Blob, folder: Path) -> None:
    """Write FP16's logits into `folder` if they are not there, and this file needs them.

    Raises:
        IntegrityError, BuildError, UserError: see `measure_fp16`.
    """
    known = lookup(bench.mint.store, _action(bench, blob))
    if known is None and not have_logits(folder, bench.readings):
        bench.mint.report(f"{bench.recipe.model}: computing FP16's logits")
        jobs = Jobs(basing=bench.basing(folder))
        path = bench.mint.store.path(bench.fp16.blob.sha256)
        evaluate(bench.bundle, path, jobs, setup=bench.setup, log=bench.log("FP16-logits"))


def measure_variant(bench: Bench, variant: str, blob: Blob, folder: Path) -> Quality:
    """Measure one variant against FP16's logits in `folder` (see `need_logits`).

    Raises:
        IntegrityError: its logits hold NaN or infinity, or it does not load.
        BuildError: the child was ended.
    """
    jobs = _jobs(bench, basing=False, folder=folder)
    return _perform(bench, _action(bench, blob), blob, variant, jobs)


def _action(bench: Bench, blob: Blob) -> Action:
    return Action(
        name="assay",
        inputs={**bench.inputs, "gguf": blob.sha256},
        tools={"bundle": bench.bundle.tree.sha256},
        arguments=bench.arguments,
    )


def _jobs(bench: Bench, *, basing: bool, folder: Path) -> Jobs:
    return Jobs(
        basing=bench.basing(folder) if basing else None,
        divergence=None if basing else folder,
        tasks=bench.tasks,
        talk=bench.talk,
        weighing=Weighing(context=bench.readings[0].context),
    )


def _perform(bench: Bench, action: Action, blob: Blob, name: str, jobs: Jobs) -> Quality:
    path = bench.mint.store.path(blob.sha256)

    def measure() -> Outcome:
        bench.mint.report(f"{bench.recipe.model}: measuring {name}")
        found = evaluate(bench.bundle, path, jobs, setup=bench.setup, log=bench.log(name))
        return Outcome(facts=_facts(found))

    outcome = perform(bench.mint.store, action, measure)
    header = gguf.read(path)
    memory = tuple(predict_memory(header, context) for context in MEMORY_CONTEXTS)
    return _quality(outcome.facts, memory, cached=outcome.cached)


def _facts(found: Evaluation) -> dict[str, Any]:
    return {
        "base": [asdict(row) for row in found.base],
        "divergences": [asdict(row) for row in found.divergences],
        "scores": [asdict(row) for row in found.scores],
        "replies": [asdict(row) for row in found.replies],
        "peak": asdict(found.peak) if found.peak else None,
        "warnings": list(found.warnings),
    }


def _quality(facts: Mapping[str, Any], memory: tuple[MemoryAt, ...], *, cached: bool) -> Quality:
    return Quality(
        base=tuple(BasePerplexity(**row) for row in facts["base"]),
        divergences=tuple(Divergence(**row) for row in facts["divergences"]),
        scores=tuple(
            Scores(row["task"], tuple(row["chosen"]), tuple(row["right"]))
            for row in facts["scores"]
        ),
        replies=tuple(Reply(**row) for row in facts["replies"]),
        peak=Peak(**facts["peak"]) if facts["peak"] else None,
        memory=memory,
        cached=cached,
    )
