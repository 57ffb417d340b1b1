"""Tokens per second with llama-bench, in a process of its own whose threads may spin."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantmint.errors import IntegrityError
from quantmint.native.build import Bundle
from quantmint.native.evaluation.results import SpeedAt, Speeds
from quantmint.native.tools import model_limits
from quantmint.process import Command, failure, run
from quantmint.registry import gguf


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """What is timed: sizes in tokens of prompts and of generated texts, each `repetitions` times.

    The tool warms up with a run that does not count.
    """

    prompts: tuple[int, ...] = (128, 512)
    generations: tuple[int, ...] = (32, 64)
    repetitions: int = 5
    threads: int = 1
    gpu_layers: int = 0


def measure_speed(bundle: Bundle, model: Path, race: Race, *, log: Path) -> Speeds:
    """Measure a model's speed at each size.

    Raises:
        IntegrityError: the file is malformed.
        BuildError: the model does not load, or the tool gave no times.
    """
    gguf.read(model)
    command = Command(
        argv=[
            *bundle.command("llama-bench"), "--model", model,
            "--n-prompt", _listed(race.prompts), "--n-gen", _listed(race.generations),
            "--repetitions", str(race.repetitions), "--threads", str(race.threads),
            "--n-gpu-layers", str(race.gpu_layers), "--output", "json",
        ],
        limits=model_limits(model),
        log=log,
    )  # fmt: skip
    finished = run(command)
    try:
        rows: list[dict[str, Any]] = json.loads(finished.stdout)
        prompt = tuple(_at(row["n_prompt"], row["samples_ts"]) for row in rows if not row["n_gen"])
        made = tuple(_at(row["n_gen"], row["samples_ts"]) for row in rows if row["n_gen"])
    except (ValueError, LookupError, TypeError, IntegrityError):
        raise failure(command, finished, "gave no times") from None
    return Speeds(prompt, made)


def _listed(sizes: Sequence[int]) -> str:
    return ",".join(str(size) for size in sizes) if sizes else "0"


def _at(tokens: int, samples: Sequence[float]) -> SpeedAt:
    if not samples or min(samples) <= 0:
        raise IntegrityError(f"no times for {tokens} tokens")
    return SpeedAt(
        tokens=int(tokens),
        repetitions=len(samples),
        median=round(statistics.median(samples), 2),
        low=round(min(samples), 2),
        high=round(max(samples), 2),
    )
