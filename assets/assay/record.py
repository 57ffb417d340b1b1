"""The assay record of one variant on one kernel: measurements and verdicts, bound to digests.

It is an object in the store. Whoever publishes reads it again and compares its digests with the
bytes at hand: a release can't hold bytes that were not the tested ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from quantmint.assets.assay.measured import Quality
from quantmint.assets.assay.on_kernel import OnKernel
from quantmint.assets.verdict import Verdict
from quantmint.errors import IntegrityError
from quantmint.files import canonical_json
from quantmint.native.evaluation.results import (
    Agreement,
    BasePerplexity,
    Choices,
    Divergence,
    MemoryAt,
    Peak,
    Reply,
    SpeedAt,
    Speeds,
)
from quantmint.registry.actions import Action, Outcome, perform
from quantmint.registry.store import Blob, Store

FORMAT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Assayed:
    """Everything that is known of one variant on one kernel.

    `digests` are the sha256 of the variant (`gguf`), `fp16` and the `text`; `quality` fields are
    empty where quality was measured on another kernel.
    """

    model: str
    variant: str
    file: str
    kernel: str
    cpu: str
    threads: int
    size: int
    bits_per_weight: float
    digests: Mapping[str, str]
    base: tuple[BasePerplexity, ...] = ()
    divergences: tuple[Divergence, ...] = ()
    choices: tuple[Choices, ...] = ()
    replies: tuple[Reply, ...] = ()
    memory: tuple[MemoryAt, ...] = ()
    peak: Peak | None = None
    agreement: Agreement | None = None
    speeds: Speeds | None = None
    verdicts: tuple[Verdict, ...] = ()

    @property
    def withheld(self) -> tuple[str, ...]:
        """Why the variant must not be released; empty if it passed every gate."""
        return tuple(f"{v.check}: {v.reason}" for v in self.verdicts if v.refuses)


def with_quality(quality: Quality, fp16: Quality) -> dict[str, Any]:
    """Return the fields of `Assayed` that measuring quality fills."""
    return {
        "base": fp16.base,
        "divergences": quality.divergences,
        "choices": quality.choices(fp16),
        "replies": quality.replies,
        "memory": quality.memory,
        "peak": quality.peak,
    }


def with_kernel(found: OnKernel) -> dict[str, Any]:
    """Return the fields of `Assayed` that measuring on a kernel fills."""
    return {"agreement": found.agreement, "speeds": found.speeds}


def keep(store: Store, record: Assayed) -> Blob:
    """Put the record into the store, named by an action so that no collection removes it."""
    data = canonical_json({"assay": FORMAT, **asdict(record)})
    action = Action(
        name="assay-record", inputs=dict(record.digests), tools={},
        arguments={"record": hashlib.sha256(data).hexdigest()},
    )  # fmt: skip
    made = perform(store, action, lambda: Outcome(outputs={"record": store.put_bytes(data)}))
    return made.outputs["record"]


def load(store: Store, blob: Blob) -> Assayed:
    """Read a record back.

    Raises:
        IntegrityError: the object is missing, damaged or no such record.
    """
    try:
        value = json.loads(store.read(blob))
        if value.pop("assay") != FORMAT:
            raise ValueError("format")
        return _typed(value)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise IntegrityError(f"object {blob.sha256} is no assay record: {error}") from error


def _typed(value: dict[str, Any]) -> Assayed:
    lists = {
        "base": BasePerplexity, "divergences": Divergence, "choices": Choices, "replies": Reply,
        "memory": MemoryAt, "verdicts": Verdict,
    }  # fmt: skip
    single = {"peak": Peak, "agreement": Agreement}
    fields: dict[str, Any] = dict(value)
    for name, kind in lists.items():
        fields[name] = tuple(kind(**row) for row in value[name])
    for name, kind in single.items():
        fields[name] = None if value[name] is None else kind(**value[name])
    if value["speeds"] is not None:
        fields["speeds"] = Speeds(*(_rows(value["speeds"][k]) for k in ("prompt", "generation")))
    return Assayed(**fields)


def _rows(rows: Sequence[Mapping[str, Any]]) -> tuple[SpeedAt, ...]:
    return tuple(SpeedAt(**row) for row in rows)
