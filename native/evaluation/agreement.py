"""Comparing kernels by their logits on the same file and tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quantmint.errors import IntegrityError
from quantmint.native.evaluation.results import Agreement


def compare_logits(reference: Path, found: Path, *, kernel: str) -> Agreement:
    """Compare two .npy files that a `Probe` wrote, `reference` by the kernel of that name.

    The squared difference is taken over all logits, in float64. A logit that is no finite number
    makes `finite` false; the distances are then infinite.

    Raises:
        IntegrityError: the files are of different shape, or no such files.
    """
    one, other = _load(reference), _load(found)
    if one.shape != other.shape:
        raise IntegrityError(f"logits of shape {other.shape} and {one.shape} can't be compared")
    finite = bool(np.isfinite(one).all() and np.isfinite(other).all())
    if not finite:
        infinite = float("inf")
        return Agreement(
            reference=kernel, tokens=len(one), nmse=infinite, top1=0.0,
            largest_difference=infinite, finite=False,
        )  # fmt: skip
    difference = other.astype(np.float64) - one
    power = float(np.mean(np.square(one, dtype=np.float64)))
    return Agreement(
        reference=kernel,
        tokens=len(one),
        nmse=float(np.mean(difference**2)) / power if power > 0 else 0.0,
        top1=float(np.mean(one.argmax(axis=1) == other.argmax(axis=1))),
        largest_difference=float(np.abs(difference).max()),
        finite=True,
    )


def _load(path: Path) -> npt.NDArray[np.float32]:
    try:
        value: npt.NDArray[Any] = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise IntegrityError(f"{path.name} holds no logits: {error}") from None
    if value.ndim != 2 or value.dtype != np.float32 or value.size == 0:
        raise IntegrityError(f"{path.name} holds {value.dtype} of shape {value.shape}, no logits")
    return value
