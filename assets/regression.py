"""The regression watch: did a new llama.cpp, kernel or recipe move what was measured before?

The golden values of a model are those of its first assay, or of the last that a person accepted.
They stand until they are accepted anew: a drift in small steps is seen as well as a leap.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from quantmint import names
from quantmint.assets.assay.record import Assayed, load
from quantmint.assets.verdict import Verdict
from quantmint.errors import IntegrityError
from quantmint.files import canonical_json
from quantmint.registry.store import Store

REGRESSION: Final = "regression"
BASIS: Final = ("source", "calibration")
FORMAT: Final = 1
LARGEST_FILE: Final = 1 << 24
# Perplexity of the same bytes on the same tokens: its standard error tells how it would differ on
# another text, and no chance of that kind is left. What is left is the order of additions: by it,
# kernels of one llama.cpp differ by 5e-6 of FP16's perplexity, and by 5e-4 of a Q2_K's.
SAME_TEXT: Final = 1e-3
# The same for the mean divergence, in nats: kernels differ by 1e-5 where it is smallest (Q8_0).
LEAST_KLD: Final = 3e-5
# Items of a task whose answer may change: a tie between two options falls to either side.
ITEMS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One measurement and the bar that it may move within, in its own unit.

    `worse` is 1 where more is worse and -1 where less is. A `blocking` value may not get worse
    by more than the bar; others only warn (speed, which depends on what else a machine does).
    """

    value: float
    bar: float
    worse: int
    blocking: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """What a variant on a kernel was measured at, and with which llama.cpp (`pin`, a commit).

    `basis` holds whatever makes numbers comparable, by digest: source, texts. `digests` are those
    of the record: the file that was measured, its FP16 file, the kernel's bundle. `where` names
    CPU and thread count: speeds are compared on the same only.
    """

    variant: str
    kernel: str
    pin: str
    where: str
    basis: Mapping[str, str]
    digests: Mapping[str, str]
    values: Mapping[str, Value] = field(default_factory=dict)


def golden_of(record: Assayed, pin: str, basis: Mapping[str, str]) -> Golden:
    """Return the values of an assay record that are watched.

    Args:
        record: any variant on any kernel.
        pin: the llama.cpp commit that it was measured with.
        basis: digests of what changes numbers rightly: `source`, `calibration` and the like; the
            assay's text is added.
    """
    return Golden(
        variant=record.variant,
        kernel=record.kernel,
        pin=pin,
        where=f"{record.cpu} x {record.threads}",
        basis={**basis, "text": record.digests["text"]},
        digests=dict(record.digests),
        values=_quality(record) | _tasks(record) | _speed(record),
    )


def _quality(record: Assayed) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for at in record.divergences:
        # The number of chunks is in the name: other chunks are another text.
        name = f"{at.context}x{at.chunks}"
        exact = SAME_TEXT * at.base_ppl
        paired = at.ppl * math.hypot(at.ppl_ratio_error / at.ppl_ratio, SAME_TEXT)
        found |= {
            f"fp16_ppl_{name}": Value(value=at.base_ppl, bar=exact, worse=1),
            f"ppl_{name}": Value(value=at.ppl, bar=paired, worse=1),
            f"ppl_ratio_{name}": Value(value=at.ppl_ratio, bar=at.ppl_ratio_error, worse=1),
            f"kld_mean_{name}": Value(value=at.kld_mean, bar=max(at.kld_error, LEAST_KLD), worse=1),
            f"top1_{name}": Value(value=at.top1, bar=at.top1_error, worse=-1),
            f"rms_dp_{name}": Value(value=at.rms_dp, bar=at.rms_dp_error, worse=1),
        }
    return found


def _tasks(record: Assayed) -> dict[str, Value]:
    """Return accuracies; the bar is half the 95 % interval against FP16, `ITEMS` at least."""
    return {
        f"{task.task}_accuracy_of_{task.items}": Value(
            value=task.correct / task.items,
            bar=max((task.high - task.low) / 2, (ITEMS + 0.5) / task.items),
            worse=-1,
        )
        for task in record.choices
    }


def _speed(record: Assayed) -> dict[str, Value]:
    found: dict[str, Value] = {}
    if record.speeds is not None:
        for kind, rows in (
            ("prompt", record.speeds.prompt),
            ("generation", record.speeds.generation),
        ):
            for at in rows:
                spread = max(at.high - at.median, at.median - at.low)
                found[f"{kind}_tps_{at.tokens}"] = Value(
                    value=at.median, bar=spread, worse=-1, blocking=False
                )
    return found


def compare(old: Golden, new: Golden) -> Verdict:
    """Say what moved beyond its bar between two measurements of one variant on one kernel.

    The bar is the larger one of the two. Getting worse fails; getting better is told. Where the
    basis is another one, or nothing is the same, there is nothing to compare: that passes, and is
    said.
    """
    between = f"llama.cpp {old.pin[:12]} and {new.pin[:12]}"
    changed = sorted(k for k in {*old.basis, *new.basis} if old.basis.get(k) != new.basis.get(k))
    if changed:
        return Verdict(
            REGRESSION, True, f"not comparable with the golden values: other {', '.join(changed)}"
        )
    same_place = old.where == new.where
    common = [
        name for name, value in old.values.items()
        if name in new.values and (value.blocking or same_place)
    ]  # fmt: skip
    moved = {name: _moved(old.values[name], new.values[name]) for name in common}
    worse = [n for n in common if moved[n] > 0 and old.values[n].blocking]
    told = [n for n in common if moved[n] and n not in worse]
    facts = _facts(old, new, [*worse, *told])
    if worse:
        said = "; ".join(_said(name, old, new) for name in worse)
        # Which of the two files it is tells where to look.
        same = old.digests.get("gguf") == new.digests.get("gguf")
        where = "the same bytes: the kernels changed" if same else "other bytes"
        return Verdict(
            REGRESSION, False,
            f"worse than the golden values beyond the error bar, between {between} ({where}): "
            f"{said}. Find the cause (llama.cpp's changes, the recipe), or accept what is measured "
            "now: quantmint build MODEL --accept-measurements",
            facts,
        )  # fmt: skip
    if not any(old.values[name].blocking for name in common):
        return Verdict(REGRESSION, True, "nothing to compare: no context or task in common", facts)
    note = "".join(f"; {_said(name, old, new)}" for name in told)
    return Verdict(
        REGRESSION, True,
        f"{len(common)} values between {between}: none is worse beyond its error bar{note}", facts,
    )  # fmt: skip


def _moved(old: Value, new: Value) -> int:
    """Return 1 if the value got worse beyond the bar, -1 if better, 0 otherwise."""
    change = (new.value - old.value) * old.worse
    if math.isnan(change):
        return 1
    bar = max(old.bar, new.bar)
    return int(change > bar) - int(change < -bar)


def _said(name: str, old: Golden, new: Golden) -> str:
    one, other = old.values[name], new.values[name]
    word = "worse" if _moved(one, other) > 0 else "better"
    bar = max(one.bar, other.bar)
    return f"{name} was {one.value:.5g}, is {other.value:.5g} ({word}; bar {bar:.2g})"


def _facts(old: Golden, new: Golden, names_moved: Sequence[str]) -> dict[str, Any]:
    facts: dict[str, Any] = {"pin_before": old.pin, "pin_now": new.pin}
    for name in names_moved:
        facts[f"{name}_before"] = old.values[name].value
        facts[f"{name}_now"] = new.values[name].value
    return facts


def watch(store: Store, record: Assayed, pin: str, basis: Mapping[str, str]) -> Verdict:
    """Compare a record with the model's golden values; the first of its kind become them.

    A record that was withheld never becomes golden. Values on another basis (another source or
    text) take the old ones' place.

    Raises:
        IntegrityError: the file of golden values is damaged.
    """
    known = load_golden(store, record.model)
    new = golden_of(record, pin, basis)
    old = known.get((record.variant, record.kernel))
    if old is not None and old.basis == new.basis and old.values.keys() & new.values.keys():
        verdict = compare(old, new)
        fresh = {name: v for name, v in new.values.items() if name not in old.values}
        if verdict.passed and fresh and not record.withheld:  # a context or task that was added
            accept(store, record.model, [replace(old, values={**fresh, **old.values})])
        return verdict
    if record.withheld:
        return Verdict(REGRESSION, True, "no golden values yet, and these were withheld")
    accept(store, record.model, [new])
    why = "first measured" if old is None else "measured on another basis than before"
    return Verdict(REGRESSION, True, f"{why}: {len(new.values)} values are golden from now on")


def accept(store: Store, model: str, found: Sequence[Golden]) -> None:
    """Make these the golden values of their variants and kernels; others of the model stay."""
    known = load_golden(store, model) | {(g.variant, g.kernel): g for g in found}
    rows = [asdict(known[key]) for key in sorted(known)]
    value = {"golden": FORMAT, "model": model, "rows": rows}
    store.write(_path(store, model), canonical_json(value))


def accept_records(store: Store, model: str, records: Sequence[str]) -> None:
    """Make what these assay records (by sha256) say the model's golden values.

    Raises:
        IntegrityError: a record is gone or damaged.
    """
    found = [load(store, store.find(sha256)) for sha256 in records]
    accept(store, model, [golden_of(each, pin_of(each), basis_of(each)) for each in found])


def basis_of(record: Assayed) -> dict[str, str]:
    """Return the digests of what changes numbers rightly: the source, the calibration text."""
    return {name: record.digests[name] for name in BASIS if name in record.digests}


def pin_of(record: Assayed) -> str:
    """Return the llama.cpp commit that a record was measured with."""
    return record.digests["llama_cpp"]


def load_golden(store: Store, model: str) -> dict[tuple[str, str], Golden]:
    """Return a model's golden values by variant and kernel; none if there is no file of them.

    Raises:
        IntegrityError: the file is damaged.
    """
    path = _path(store, model)
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE)
    except FileNotFoundError:
        return {}
    try:
        value = json.loads(data)
        if value["golden"] != FORMAT or value["model"] != model:
            raise ValueError("it is of another format or model")
        return {(row["variant"], row["kernel"]): _golden(row) for row in value["rows"]}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise IntegrityError(
            f"the golden values {path} are damaged: {error}",
            mend=f"rm {path}  (the next build records them anew)",
        ) from error


def _golden(row: Mapping[str, Any]) -> Golden:
    values = {name: Value(**value) for name, value in row["values"].items()}
    if not all(isinstance(value.value, int | float) for value in values.values()):
        raise TypeError("a value is no number")
    return Golden(**{**row, "values": values})


def _path(store: Store, model: str) -> Path:
    return store.root / "golden" / f"{names.check(names.MODEL, model, 'model name')}.json"
