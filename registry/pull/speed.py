"""How fast a variant would be here, from what its publisher measured on some kernel.

A generated token reads all weights once, so its time goes with the file's size and with the
memory's speed. What was measured on a machine like this one is taken as it is. Measurements on
another kernel or CPU are taken for the kernel that is nearest to ours among those that we can run,
and are scaled down, never up, where we have fewer cores than the threads they used.

What the CPU reaches says nothing of a GPU: where a GPU takes all and was not measured, the speed is
not known; where it takes a part, the CPU's rate is the least, and the most is what the CPU would
need for its own part alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantmint.registry.machine import Gpu, Machine
from quantmint.registry.manifest.measured import OnKernel
from quantmint.registry.manifest.release import Variant


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens per second of generation, and where the number comes from.

    `most` is what it may be at best: more than `rate` where a part of the work was not measured.
    """

    rate: float
    source: str
    most: float

    def reaches(self, floor: float) -> bool:
        """Return whether it is not known to be slower."""
        return self.most >= floor


def speed_of(
    row: Variant | None, machine: Machine, gpus: Sequence[Gpu] = (), share: float = 0.0
) -> Speed | None:
    """Return the speed to expect; None where nothing was measured that says it.

    Args:
        row: what the manifest says of the variant.
        machine: this machine.
        gpus: those that it is put on.
        share: how much of it these take.
    """
    rows = [each for each in (row.kernels if row else ()) if each.generation]
    if gpus and share >= 1.0:
        return _on_gpus(rows, gpus)
    rows = [each for each in rows if each.gpu is None and each.kernel in machine.kernels]
    if not rows:
        return None
    order = {name: at for at, name in enumerate(machine.kernels)}
    ours = [each for each in rows if _same(each.cpu, machine.cpu)] or rows
    nearest = max(ours, key=lambda each: (order[each.kernel], _rate(each)))
    scale = min(1.0, machine.cores / nearest.threads)
    source = f"measured on {nearest.kernel}, {nearest.cpu}, {nearest.threads} threads"
    if scale < 1.0:
        source += f", x {scale:.2f} for {machine.cores} cores"
    if not _same(nearest.cpu, machine.cpu):
        source += "; another CPU than this one"
    rate = _rate(nearest) * scale
    if gpus:
        source += "; on the CPU alone: with layers on a GPU it is more"
    return Speed(rate, source, rate / (1.0 - share))


def _on_gpus(rows: Sequence[OnKernel], gpus: Sequence[Gpu]) -> Speed | None:
    """Return the slowest GPU's rate: of several each has its part of the layers."""
    best = []
    for name in {gpu.name for gpu in gpus}:
        same = [each for each in rows if each.gpu == name]
        if not same:
            return None
        best.append(max(same, key=_rate))
    slowest = min(best, key=_rate)
    rate = _rate(slowest)
    return Speed(rate, f"measured on {slowest.kernel}, {slowest.gpu}", rate)


def _rate(row: OnKernel) -> float:
    """Return the median at the most tokens that were generated: long answers are what is waited
    for."""
    return max(row.generation, key=lambda each: each.tokens).median


def _same(one: str, other: str) -> bool:
    return one.split() == other.split()
