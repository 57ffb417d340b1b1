"""Asking one child process for everything that is to be measured on one model file."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from quantmint import errors
from quantmint.errors import BugError, QuantmintError
from quantmint.native.build import Bundle
from quantmint.native.evaluation.facts import rope_factors
from quantmint.native.evaluation.jobs import Jobs, Setup
from quantmint.native.evaluation.results import (
    BasePerplexity,
    Divergence,
    MemoryAt,
    Peak,
    Reply,
    Sameness,
    Scores,
)
from quantmint.native.tools import PATIENT
from quantmint.process import Command, Limits, answer_of, run
from quantmint.registry import gguf


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What was measured; a job that was not asked for leaves its field empty.

    `seconds` tells how long each job took, `warnings` what llama.cpp said on the way.
    """

    base: tuple[BasePerplexity, ...] = ()
    divergences: tuple[Divergence, ...] = ()
    scores: tuple[Scores, ...] = ()
    replies: tuple[Reply, ...] = ()
    sameness: Sameness | None = None
    peak: Peak | None = None
    memory: tuple[MemoryAt, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def evaluate(bundle: Bundle, model: Path, jobs: Jobs, *, setup: Setup, log: Path) -> Evaluation:
    """Load `model` once in a child process of its own and do all of `jobs`.

    The header is read here by the strict reader, which refuses a malformed file before any
    native parser sees it.

    Raises:
        IntegrityError: the file is malformed, does not load, or gave NaN or infinity.
        UserError: the text is too short, or the disk or the budget too small.
        BuildError: the child was ended (a crash, a limit), or the kernel does not load here.
    """
    header = gguf.read(model)
    if jobs.basing is not None:
        jobs.basing.folder.mkdir(parents=True, exist_ok=True)
    found = _ask(bundle, model, jobs, setup, log)
    return _typed(found, header)


def _ask(bundle: Bundle, model: Path, jobs: Jobs, setup: Setup, log: Path) -> dict[str, Any]:
    request = {
        "model": str(model), "kernel": str(bundle.kernel_library), "threads": setup.threads,
        "gpu_layers": setup.gpu_layers, "jobs": asdict(jobs),
    }  # fmt: skip
    command = Command(
        argv=[sys.executable, "-m", "quantmint.native.evaluation.child"],
        env={
            "LLAMA_CPP_LIB_PATH": str(bundle.folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            **(PATIENT if setup.patient else {}),
        },
        limits=Limits(
            wall_seconds=setup.wall_seconds,
            address_space=setup.address_space or _address_space(model, jobs),
        ),
        stdin=json.dumps(request, default=str).encode(),
        log=log,
    )
    value = answer_of(command, run(command))
    if "refused" in value:
        raise _refusal(value["refused"])
    return value


def _address_space(model: Path, jobs: Jobs) -> int:
    """Return a bound by the sizes of what is loaded and mapped, with room for a long context."""
    mapped = sum(p.stat().st_size for p in jobs.divergence.iterdir()) if jobs.divergence else 0
    return 3 * model.stat().st_size + mapped + (24 << 30)


def _refusal(refused: Mapping[str, Any]) -> QuantmintError:
    kind = getattr(errors, str(refused["class"]), None)
    if not (isinstance(kind, type) and issubclass(kind, QuantmintError)):
        return BugError(f"the child refused in an unknown way: {refused}")
    mend = refused["mend"]
    return kind(str(refused["what"]), mend=None if mend is None else str(mend))


def _typed(found: Mapping[str, Any], header: gguf.Gguf) -> Evaluation:
    return Evaluation(
        base=tuple(
            BasePerplexity(**row, rope=rope_factors(header, row["context"]))
            for row in found.get("basing", ())
        ),
        divergences=tuple(
            replace(value, rope=rope_factors(header, value.context))
            for value in (Divergence(**row["divergence"]) for row in found.get("divergence", ()))
        ),
        scores=tuple(
            Scores(row["task"], tuple(row["chosen"]), tuple(row["right"]))
            for row in found.get("tasks", ())
        ),
        replies=tuple(Reply(**row) for row in found.get("talk", ())),
        sameness=(
            Sameness(digests=tuple((n, tuple(d)) for n, d in found["probe"]["digests"]))
            if "probe" in found
            else None
        ),
        peak=Peak(**found["weighing"]) if "weighing" in found else None,
        memory=tuple(
            MemoryAt(**row, weights=sum(tensor.size for tensor in header.tensors))
            for row in found.get("accounting", ())
        ),
        seconds=dict(found["seconds"]),
        warnings=tuple(found.get("warnings", ())),
    )
