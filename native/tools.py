"""Running llama.cpp's own tools: convert, quantize, perplexity, bench."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantmint.errors import BuildError, IntegrityError
from quantmint.native.build import Bundle, Report
from quantmint.process import Command, Limits, failure, run

PERPLEXITY = re.compile(r"Final estimate: PPL = (?P<value>\S+) \+/- (?P<error>\S+)")
DAY = 24 * 3600.0
LOST_LINE_TRIES = 4
# Threads that wait for each other sleep instead of spinning: on a busy machine a test then takes
# as long as its work, not eight times that. Only a measurement of speed spins, as users' runs do.
PATIENT = {"OMP_WAIT_POLICY": "PASSIVE"}


def model_limits(model: Path, seconds: float = DAY) -> Limits:
    """Return the bounds of a tool that loads `model`: time, and memory by the file's size."""
    return Limits(wall_seconds=seconds, address_space=3 * model.stat().st_size + (16 << 30))


def convert(script: Path, checkpoint: Path, target: Path, *, report: Report, log: Path) -> None:
    """Convert a Hugging Face checkpoint folder to an FP16 GGUF with llama.cpp's converter.

    The folder's name becomes the model's name in the file, as in a conversion by hand.

    Raises:
        BuildError: the converter failed.
    """
    command = Command(
        argv=[
            sys.executable, script, checkpoint, "--outtype", "f16", "--outfile", target,
        ],
        # The converter must neither reach for a hub nor run code out of the checkpoint.
        env={"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONWARNINGS": "ignore",
             "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
        limits=Limits(wall_seconds=DAY),
        log=log,
    )  # fmt: skip
    report(f"$ {command.line}")
    run(command)
    if not target.is_file():
        raise BuildError(f"the converter wrote no {target.name}; its output is in {log}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantizing:
    """One run of llama-quantize."""

    source: Path
    target: Path
    ftype: str
    threads: int
    requantize: bool = False


def quantize(bundle: Bundle, job: Quantizing, *, report: Report, log: Path) -> None:
    """Rewrite one file in another type: how a quantized source becomes FP16.

    Raises:
        BuildError: llama-quantize failed.
    """
    argv: list[str | Path] = [bundle.tool("llama-quantize")]
    if job.requantize:
        argv.append("--allow-requantize")
    argv += [job.source, job.target, job.ftype, str(job.threads)]
    command = Command(argv=argv, limits=model_limits(job.source), log=log)
    report(f"$ {command.line}")
    run(command)


@dataclass(frozen=True, slots=True)
class Perplexity:
    """Perplexity of a model on a text, with its standard error; `context` counts tokens."""

    value: float
    error: float
    context: int
    chunks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What to compute perplexity on."""

    text: Path
    context: int
    chunks: int
    threads: int
    gpu_layers: int = 0


def perplexity(bundle: Bundle, model: Path, job: Reading, *, log: Path) -> Perplexity:
    """Measure the perplexity of `model` with llama-perplexity.

    Raises:
        BuildError: the model does not load, or the tool gave no estimate.
        IntegrityError: the estimate is not finite.
    """
    command = Command(
        argv=[
            bundle.tool("llama-perplexity"), "--model", model, "--file", job.text,
            "--ctx-size", str(job.context), "--chunks", str(job.chunks),
            "--threads", str(job.threads), "--gpu-layers", str(job.gpu_layers), "--no-warmup",
        ],
        env=PATIENT,
        limits=model_limits(model),
        log=log,
    )  # fmt: skip
    # The tool can end before its own log thread wrote the last line: then it is run again.
    for _ in range(LOST_LINE_TRIES):
        finished = run(command)
        found = PERPLEXITY.search(finished.stdout + finished.stderr)
        if found is not None:
            break
    else:
        raise failure(command, finished, "gave no perplexity (is the text long enough?)")
    value, error = float(found["value"]), float(found["error"])
    if not (math.isfinite(value) and math.isfinite(error)):
        raise IntegrityError(
            f"its perplexity is {value} ± {error}: its logits hold NaN or infinity",
            mend="the file is unusable: check the source, then convert and quantize it again",
        )
    return Perplexity(value, error, job.context, job.chunks)


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens per second: reading a prompt, and generating."""

    prompt: float
    generation: float


def bench(bundle: Bundle, model: Path, *, threads: int, gpu_layers: int = 0, log: Path) -> Speed:
    """Measure a model's speed with llama-bench: the mean of three runs of 64 + 32 tokens.

    Raises:
        BuildError: the model does not load.
    """
    command = Command(
        argv=[
            bundle.tool("llama-bench"), "--model", model, "--n-prompt", "64", "--n-gen", "32",
            "--repetitions", "3", "--threads", str(threads), "--n-gpu-layers", str(gpu_layers),
            "--output", "json",
        ],
        limits=model_limits(model),
        log=log,
    )  # fmt: skip
    finished = run(command)
    rows: Sequence[dict[str, Any]] = json.loads(finished.stdout)
    by_kind = {"prompt" if row["n_gen"] == 0 else "generation": row["avg_ts"] for row in rows}
    return Speed(round(by_kind["prompt"], 1), round(by_kind["generation"], 1))
