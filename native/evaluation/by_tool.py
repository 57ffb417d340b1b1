"""Comparing kernels of other machines: by llama.cpp's own program, under an emulator if need be.

The child process of `engine` is this machine's Python, so it can't load another machine's kernel.
llama-perplexity can be run under the bundle's `runner`, and writes its log-probabilities in 16
bits: a step is 16/65535 of a nat at most, so an error below 1e-9 (nmse) can't be seen this way.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from quantmint.errors import IntegrityError
from quantmint.native.build import Bundle
from quantmint.native.evaluation.child.logprobs import BaseFile, open_base
from quantmint.native.evaluation.jobs import Reading
from quantmint.native.evaluation.results import Agreement
from quantmint.native.tools import PATIENT, model_limits
from quantmint.process import Command, failure, run
from quantmint.registry import gguf


def write_log_probabilities(
    bundle: Bundle, model: Path, text: Path, reading: Reading, *, threads: int, log: Path,
    target: Path,
) -> None:  # fmt: skip
    """Let the bundle's llama-perplexity write the log-probabilities of each chunk's second half.

    The text must have twice `reading.context` tokens or more.

    Raises:
        IntegrityError: the file is malformed.
        BuildError: the program can't be run here, or the model does not load.
    """
    gguf.read(model)
    command = Command(
        argv=[
            *bundle.command("llama-perplexity"), "--model", model, "--file", text,
            "--ctx-size", str(reading.context), "--chunks", str(reading.chunks),
            "--threads", str(threads), "--gpu-layers", "0", "--no-warmup",
            "--kl-divergence-base", target,
        ],
        env=PATIENT,
        limits=model_limits(model),
        log=log,
    )  # fmt: skip
    target.unlink(missing_ok=True)
    finished = run(command)
    if not target.is_file():
        raise failure(command, finished, "wrote no log-probabilities (is the text long enough?)")


def compare_log_probabilities(reference: Path, found: Path, *, kernel: str) -> Agreement:
    """Compare two such files of the same text, `reference` by the kernel of that name.

    Distances are those of log-probabilities.

    Raises:
        IntegrityError: a file is damaged, or they are of other tokens.
    """
    one, other = open_base(reference), open_base(found)
    if one.vocabulary != other.vocabulary or not np.array_equal(one.tokens, other.tokens):
        raise IntegrityError(f"{found.name} and {reference.name} are of other tokens")
    square = power = largest = 0.0
    same = count = 0
    for chunk in range(len(one.rows)):
        mine, theirs = _values(one, chunk), _values(other, chunk)
        if not (np.isfinite(mine).all() and np.isfinite(theirs).all()):
            infinite = float("inf")
            return Agreement(
                reference=kernel, tokens=one.rows.shape[0] * one.rows.shape[1], nmse=infinite,
                top1=0.0, largest_difference=infinite, finite=False,
            )  # fmt: skip
        difference = theirs - mine
        square += float(np.sum(difference**2))
        power += float(np.sum(mine**2))
        largest = max(largest, float(np.abs(difference).max()))
        same += int(np.sum(mine.argmax(axis=1) == theirs.argmax(axis=1)))
        count += len(mine)
    return Agreement(
        reference=kernel,
        tokens=count,
        nmse=square / power if power > 0 else 0.0,
        top1=same / count,
        largest_difference=largest,
        finite=True,
    )


def _values(base: BaseFile, chunk: int) -> npt.NDArray[np.float64]:
    """Return one chunk's log-probabilities, (scored tokens, vocabulary), in float64."""
    rows = base.rows[chunk]
    factors = np.ascontiguousarray(rows[:, :4]).view(np.float32).astype(np.float64)
    levels = rows[:, 4 : 4 + base.vocabulary].astype(np.float64)
    values: npt.NDArray[np.float64] = levels * factors[:, :1] + factors[:, 1:]
    return values
