"""Choosing a variant: the best quality that fits this machine at a speed floor.

Pure: offers, a machine and wishes in, a table of candidates out. docs/pull.md has the rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from quantmint.errors import IntegrityError, QuantmintError, UserError, nearest
from quantmint.files import human_bytes
from quantmint.registry.machine import Gpu, Machine
from quantmint.registry.manifest.measured import Divergence
from quantmint.registry.manifest.release import Variant
from quantmint.registry.pull.fitting import Device
from quantmint.registry.pull.header import Shape
from quantmint.registry.pull.offers import Offer
from quantmint.registry.pull.speed import Speed, speed_of

AUTO: Final = "auto"
CONTEXT: Final = 4096
MIN_SPEED: Final = 4.0
# What the system and other programs keep of the memory.
KEPT: Final = 0.10
_TOGETHER: Final = 0.95
# A manifest does not say how many layers share the bytes; a GPU that holds less than a quarter of
# them changes little.
_LAYERS: Final = 24
_WORTH: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What is wanted. `variant` is a name or `auto`; `context` in tokens; `memory` in bytes.

    `min_speed` is in tokens per second; None is a floor of 4 that gives way where nothing meets
    it.
    """

    variant: str = AUTO
    context: int = CONTEXT
    min_speed: float | None = None
    memory: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One offer, judged. `memory` is bytes at the context asked for; `why` says the verdict."""

    offer: Offer
    memory: int
    on: str
    fits: bool
    speed: Speed | None
    kld: float | None
    kld_context: int | None
    taken: bool = False
    why: str = ""

    @property
    def rank(self) -> tuple[float, ...]:
        """Smaller is better: measured divergence first, then more bits, then fewer bytes."""
        kld = 0.0 if self.kld is None and self.offer.is_wide else self.kld
        bits = self.offer.bits or 0.0
        if kld is None:
            return (1, -bits, -self.offer.size)
        return (0, kld, -bits, self.offer.size)


class RefusedError(QuantmintError):
    """Nothing is taken; `candidates` say why, each for itself."""

    def __init__(
        self,
        what: str,
        *,
        mend: str | None = None,
        machine: Machine,
        candidates: Sequence[Candidate],
    ) -> None:
        super().__init__(what, mend=mend)
        self.machine = machine
        self.candidates = tuple(candidates)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, self.mend, self.machine, self.candidates))


class NoChoiceError(RefusedError, UserError):
    """Nothing can be taken as it was asked for."""


class NoVariantError(NoChoiceError):
    """There is no variant of the name that was asked for."""


class WithdrawnVariantError(RefusedError, IntegrityError):
    """The variant that was asked for was withdrawn by its publisher, or all of them were."""


def _rebuild(
    kind: type[RefusedError],
    what: str,
    mend: str | None,
    machine: Machine,
    candidates: tuple[Candidate, ...],
) -> RefusedError:
    return kind(what, mend=mend, machine=machine, candidates=candidates)


@dataclass(frozen=True, slots=True)
class Choice:
    """The one that is taken, and all candidates with the reasons."""

    taken: Candidate
    candidates: tuple[Candidate, ...]
    notes: tuple[str, ...] = ()


def choose(
    offers: Sequence[Offer], machine: Machine, wishes: Wishes, shape: Shape | None = None
) -> Choice:
    """Choose one of `offers`.

    `shape` is what a header says, for offers without a manifest.

    Raises:
        NoChoiceError: there is no such variant; nothing fits, and the message says what would; or
            nothing is as fast as was asked for.
        UserError: nothing is offered.
        WithdrawnVariantError: the variant that was asked for was withdrawn, or all were.
    """
    if not offers:
        raise UserError("nothing is offered", mend="pull from another registry")
    rows = [_judge(offer, machine, wishes, shape) for offer in offers]
    if wishes.variant != AUTO:
        return _named(rows, wishes, machine)
    usable = [row for row in rows if not row.offer.withdrawn]
    fitting = [row for row in usable if row.fits]
    floor = MIN_SPEED if wishes.min_speed is None else wishes.min_speed
    quick = [row for row in fitting if row.speed is None or row.speed.reaches(floor)]
    notes = []
    if not usable:
        raise WithdrawnVariantError(
            "all variants were withdrawn by their publisher", mend="pull another release",
            machine=machine, candidates=_refused(rows, ""),
        )  # fmt: skip
    if not fitting or (not quick and wishes.min_speed is not None):
        ranked = sorted(rows, key=lambda row: row.rank)
        refused = [replace(row, why=_refusal(row, floor, quick) or "") for row in ranked]
        if not fitting:
            raise _nothing_fits(refused, machine, wishes, shape)
        raise _nothing_quick(refused, machine, floor)
    if not quick:
        fastest = max(fitting, key=lambda row: row.speed.rate if row.speed else 0.0)
        notes.append(f"nothing that fits reaches {floor:g} tokens/s here; the fastest was taken")
        quick = [fastest]
    # 16 bits take twice the memory and time of 8 for a difference that is hardly measurable.
    narrow = [row for row in quick if not row.offer.is_wide] or quick
    best = min(narrow, key=lambda row: row.rank)
    told = tuple(_told(row, best, floor, quick) for row in sorted(rows, key=lambda row: row.rank))
    taken = next(row for row in told if row.taken)
    if taken.speed is None:
        notes.append("no speed was measured that holds for this machine: quality and memory chose")
    if taken.kld is None and not taken.offer.is_wide:
        notes.append("no quality was measured: more bits were taken for better")
    if taken.on == "CPU" and taken.memory > machine.available and wishes.memory is None:
        notes.append(
            f"it needs {human_bytes(taken.memory)}, and {human_bytes(machine.available)} are free"
            " now: close something before you run it"
        )
    return Choice(taken, told, tuple(notes))


def memory_of(offer: Offer, context: int, shape: Shape | None) -> int:
    """Return the bytes that a variant takes at a context length.

    By the manifest's figures the cache grows with the context; those of the next longer context
    are scaled down, or those of the longest up.
    """
    return _needs(offer, context, shape)[0]


def _needs(offer: Offer, context: int, shape: Shape | None) -> tuple[int, int]:
    """Return all the bytes that a variant takes, and those of its compute buffers among them."""
    rows = sorted(offer.row.memory, key=lambda row: row.context) if offer.row else []
    if rows:
        row = next((row for row in rows if row.context >= context), rows[-1])
        share = context / row.context
        compute = round(row.compute * max(1.0, share))
        return round(row.weights + row.cache * share) + compute, compute
    if shape is not None:
        beside = shape.beside_weights(context)
        return offer.size + beside, beside - shape.cache * context
    return round(offer.size * 1.2) + (256 << 20), 256 << 20


def divergence_of(row: Variant | None, context: int) -> Divergence | None:
    """Return what was measured nearest to a context: at the next longer one, else the longest."""
    rows = sorted(row.divergence, key=lambda each: each.context) if row else []
    return next((each for each in rows if each.context >= context), rows[-1] if rows else None)


@dataclass(frozen=True, slots=True)
class _Placed:
    """Where a variant would lie: on which GPUs, how much of it, and whether that is enough."""

    on: str
    fits: bool
    gpus: tuple[Gpu, ...] = ()
    share: float = 0.0


def _place(needed: int, compute: int, layers: int, machine: Machine, wishes: Wishes) -> _Placed:
    """Place so many bytes as `run` will: on one GPU, on all, on these and the CPU, on the CPU.

    Of several GPUs each holds compute buffers of its own, and leaves room for a part of a layer
    (`fitting.fit_layers`).
    """
    if wishes.memory is not None:
        return _Placed("CPU", needed <= wishes.memory)
    room = (1 - KEPT) * machine.memory
    rooms = [(Device("", "", gpu.memory, gpu.memory).room, gpu) for gpu in machine.gpus]
    rooms = sorted((row for row in rooms if row[0] > compute), key=lambda row: -row[0])
    if rooms and needed <= rooms[0][0]:
        return _Placed(rooms[0][1].name, fits=True, gpus=(rooms[0][1],), share=1.0)
    gpus, count = tuple(gpu for _, gpu in rooms), len(rooms)
    on_gpus = sum(size for size, _ in rooms)
    beside = (count - 1) * compute + count * needed / layers
    if count > 1 and needed + beside <= on_gpus:
        return _Placed(_names(gpus), fits=True, gpus=gpus, share=1.0)
    share = min(on_gpus / needed, _TOGETHER) if needed else 0.0
    fits_cpu = needed <= room
    # Where neither holds it, some layers go to the GPUs, and buffers are there twice.
    if (not fits_cpu and rooms) or share >= _WORTH:
        fits = fits_cpu or needed <= _TOGETHER * (room + on_gpus)
        return _Placed(f"{_names(gpus)} and CPU", fits, gpus, share)
    return _Placed("CPU", fits_cpu)


def _names(gpus: Sequence[Gpu]) -> str:
    counts = Counter(gpu.name for gpu in gpus)
    return " + ".join(f"{n} x {name}" if n > 1 else name for name, n in counts.items())


def _judge(offer: Offer, machine: Machine, wishes: Wishes, shape: Shape | None) -> Candidate:
    needed, compute = _needs(offer, wishes.context, shape)
    layers = shape.layers if shape is not None and shape.layers else _LAYERS
    placed = _place(needed, compute, layers, machine, wishes)
    found = divergence_of(offer.row, wishes.context)
    return Candidate(
        offer=offer,
        memory=needed,
        on=placed.on,
        fits=placed.fits,
        speed=speed_of(offer.row, machine, placed.gpus, placed.share),
        kld=found.kld_mean if found else None,
        kld_context=found.context if found else None,
    )


def _named(rows: Sequence[Candidate], wishes: Wishes, machine: Machine) -> Choice:
    found = next((row for row in rows if row.offer.variant == wishes.variant), None)
    if found is None:
        names = [row.offer.variant for row in rows]
        several = [row.offer.variant for row in rows if row.offer.label == wishes.variant]
        if several:
            raise NoChoiceError(
                f"{len(several)} files are {wishes.variant}: {', '.join(several)}",
                mend=f"name one of these: --variant {several[0]}",
                machine=machine,
                candidates=_refused(rows, wishes.variant),
            )
        raise NoVariantError(
            f"there is no variant {wishes.variant!r}{nearest(wishes.variant, names)}",
            mend="leave the variant out to have one chosen; --explain lists them",
            machine=machine,
            candidates=_refused(rows, wishes.variant),
        )
    if found.offer.withdrawn:
        raise WithdrawnVariantError(
            f"the variant {wishes.variant} was withdrawn by its publisher",
            mend="leave the variant out to have another one chosen",
            machine=machine,
            candidates=_refused(rows, wishes.variant),
        )
    told = tuple(
        replace(row, taken=row is found, why="asked for" if row is found else "not asked for")
        for row in sorted(rows, key=lambda row: row.rank)
    )
    notes = []
    if not found.fits:
        notes.append(
            f"{wishes.variant} needs {human_bytes(found.memory)} at a context of"
            f" {wishes.context}; this machine has {human_bytes(machine.memory)}",
        )
    return Choice(next(row for row in told if row.taken), told, tuple(notes))


def _refused(rows: Sequence[Candidate], named: str) -> list[Candidate]:
    """Return the table for a name that can't be taken."""

    def why(row: Candidate) -> str:
        if row.offer.withdrawn:
            return "withdrawn by its publisher"
        if not row.fits:
            return "does not fit"
        return "may be meant" if row.offer.label == named else "not asked for"

    ordered = sorted(rows, key=lambda row: row.rank)
    return [replace(row, why=why(row)) for row in ordered]


def _told(row: Candidate, best: Candidate, floor: float, quick: Sequence[Candidate]) -> Candidate:
    if row is best:
        return replace(row, taken=True, why="taken: the best that fits and is fast enough")
    why = _refusal(row, floor, quick)
    if why is not None:
        pass
    elif row.offer.is_wide and not best.offer.is_wide:
        why = "16 bits or more: only when it is asked for"
    elif row.kld is None and best.kld is not None:
        why = "its quality was not measured"
    elif row.kld is not None and best.kld is not None and row.kld > best.kld:
        why = f"worse: KLD {row.kld:.4f}, taken {best.kld:.4f}"
    else:
        why = "fewer bits"
    return replace(row, why=why)


def _refusal(row: Candidate, floor: float, quick: Sequence[Candidate]) -> str | None:
    """Return why a variant can't be taken here whatever else there is; None if it can."""
    if row.offer.withdrawn:
        return "withdrawn by its publisher"
    if not row.fits:
        return f"does not fit: needs {human_bytes(row.memory)}"
    if row not in quick and row.speed is not None:
        return f"too slow: {row.speed.most:.1f} tokens/s, the floor is {floor:g}"
    return None


def _nothing_fits(
    rows: Sequence[Candidate], machine: Machine, wishes: Wishes, shape: Shape | None
) -> NoChoiceError:
    usable = [row for row in rows if not row.offer.withdrawn]
    least = min(usable, key=lambda row: row.memory)
    room = machine.memory * (1 - KEPT) if wishes.memory is None else wishes.memory
    what = (
        f"no variant fits: the smallest, {least.offer.variant}, needs {human_bytes(least.memory)}"
        f" at a context of {wishes.context}, and {human_bytes(room)} can be used here"
    )
    return NoChoiceError(
        what,
        mend=_shorter(least, wishes, room, shape)
        or f"use a machine with {human_bytes(least.memory / (1 - KEPT))} of memory, or a smaller"
        f" model; to fetch it all the same: --variant {least.offer.variant}",
        machine=machine,
        candidates=rows,
    )


def _shorter(least: Candidate, wishes: Wishes, room: float, shape: Shape | None) -> str | None:
    """Return the context at which the smallest variant fits, as an option; None if none does."""
    context = wishes.context // 2
    while context >= 256:
        if memory_of(least.offer, context, shape) <= room:
            return f"--context {context} fits {least.offer.variant}"
        context //= 2
    return None


def _nothing_quick(rows: Sequence[Candidate], machine: Machine, floor: float) -> NoChoiceError:
    fitting = [row for row in rows if row.fits and not row.offer.withdrawn]
    fastest = max(fitting, key=lambda row: row.speed.most if row.speed else 0.0)
    rate = fastest.speed.most if fastest.speed else 0.0
    return NoChoiceError(
        f"nothing that fits reaches {floor:g} tokens/s here: the fastest,"
        f" {fastest.offer.variant}, would reach {rate:.1f}",
        mend=f"--min-speed {max(rate * 0.95, 0.1):.1f}  (or --variant {fastest.offer.variant})",
        machine=machine,
        candidates=rows,
    )
