"""Running llama.cpp's own tools: convert, quantize."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from quantmint.errors import BuildError
from quantmint.native.build import Bundle, Report
from quantmint.process import Command, Limits, run

DAY = 24 * 3600.0
# Threads that wait for each other sleep instead of spinning: on a busy machine a test then takes
# as long as its work, not eight times that. Only a measurement of speed spins, as users' runs do.
PATIENT = {"OMP_WAIT_POLICY": "PASSIVE"}


def model_limits(model: Path, seconds: float = DAY) -> Limits:
    """Return the bounds of a tool that loads `model`: time, and memory by the file's size."""
    return Limits(wall_seconds=seconds, address_space=3 * model.stat().st_size + (16 << 30))


def convert(
    script: Path,
    checkpoint: Path,
    target: Path,
    *,
    name: str | None = None,
    report: Report,
    log: Path,
) -> None:
    """Convert a Hugging Face checkpoint folder to an FP16 GGUF with llama.cpp's converter.

    The folder's name becomes the model's name in the file, as in a conversion by hand, unless
    `name` is given.

    Raises:
        BuildError: the converter failed.
    """
    command = Command(
        argv=[
            sys.executable, script, checkpoint, "--outtype", "f16", "--outfile", target,
            *(() if name is None else ("--model-name", name)),
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
    argv = bundle.command("llama-quantize")
    if job.requantize:
        argv.append("--allow-requantize")
    argv += [job.source, job.target, job.ftype, str(job.threads)]
    command = Command(argv=argv, limits=model_limits(job.source), log=log)
    report(f"$ {command.line}")
    run(command)
