"""How fast a variant would be here, from what its publisher measured on some kernel.

A generated token reads all weights once, so its time goes with the file's size and with the
memory's speed. What was measured on a machine like this one is taken as it is. Measurements on
another kernel or CPU are taken for the kernel that is nearest to ours among those that we can run,
and are scaled down, never up, where we have fewer cores than the threads they used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantmint.registry.machine import Machine
from quantmint.registry.manifest.measured import OnKernel
from quantmint.registry.manifest.release import Variant


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens per second of generation, and where the number comes from."""

    rate: float
    source: str


def speed_of(row: Variant | None, machine: Machine, *, on_gpu: bool) -> Speed | None:
    """Return the speed to expect; None where nothing was measured that we can run."""
    rows = [each for each in (row.kernels if row else ()) if each.generation]
    if on_gpu:
        found = _on_gpu(rows, machine)
        if found is not None:
            return found
    rows = [each for each in rows if each.gpu is None and each.kernel in machine.kernels]
    if not rows:
        return None
    order = {name: at for at, name in enumerate(machine.kernels)}
    ours = [each for each in rows if _same(each.cpu, machine.cpu)] or rows
    nearest = max(ours, key=lambda each: (order[each.kernel], _rate(each)))
    share = min(1.0, machine.cores / nearest.threads)
    source = f"measured on {nearest.kernel}, {nearest.cpu}, {nearest.threads} threads"
    if share < 1.0:
        source += f", x {share:.2f} for {machine.cores} cores"
    if not _same(nearest.cpu, machine.cpu):
        source += "; another CPU than this one"
    if on_gpu:
        source += "; on the CPU, the GPU was not measured"
    return Speed(_rate(nearest) * share, source)


def _on_gpu(rows: Sequence[OnKernel], machine: Machine) -> Speed | None:
    names = {gpu.name for gpu in machine.gpus}
    same = [each for each in rows if each.gpu in names]
    if not same:
        return None
    best = max(same, key=_rate)
    return Speed(_rate(best), f"measured on {best.kernel}, {best.gpu}")


def _rate(row: OnKernel) -> float:
    """Return the median at the most tokens that were generated: long answers are what is waited
    for."""
    return max(row.generation, key=lambda each: each.tokens).median


def _same(one: str, other: str) -> bool:
    return one.split() == other.split()
