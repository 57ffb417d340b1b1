"""The assay of kernels: one small model, every quant type, each kernel against plain scalar code.

A kernel that computes something else must not be what a release is tested on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from quantmint.assets.assay.bench import EMBEDDED
from quantmint.assets.assay.gates import check_agreement
from quantmint.assets.assay.on_kernel import agree, speeds_of
from quantmint.assets.convert import make_fp16
from quantmint.assets.mint import Mint
from quantmint.assets.recipe import Assay, Gates, Recipe, Source
from quantmint.assets.source import fetch_source
from quantmint.assets.variants import Struck, strike_variants
from quantmint.assets.verdict import Verdict
from quantmint.errors import BuildError, IntegrityError
from quantmint.files import canonical_json
from quantmint.native.build import Bundle
from quantmint.native.evaluation.jobs import Setup
from quantmint.native.evaluation.results import Agreement, Sameness, SpeedAt, Speeds
from quantmint.native.evaluation.speed import Race
from quantmint.native.host import cpu_name
from quantmint.registry.actions import Action, Outcome, perform
from quantmint.registry.store import Blob

# One variant for each type that needs no importance matrix: together they use every vector kernel
# of llama.cpp that a released variant may use.
TYPES: Final = (
    "Q8_0", "Q6_K", "Q5_K_M", "Q5_1", "Q5_0", "Q4_K_M", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS",
    "Q3_K_M", "IQ3_S", "Q2_K",
)  # fmt: skip
TIMED: Final = "Q4_K_M"
SHORT: Final = Race(prompts=(128,), generations=(32,), repetitions=3)
AGREEMENT: Final = "agreement"
FP16: Final = "F16"


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeRow:
    """One quant type on one kernel; `agreement` is None for the reference kernel itself."""

    kind: str
    agreement: Agreement | None
    same_runs: bool
    same_threads: bool
    speeds: Speeds


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelAssay:
    """What a kernel was measured at on every type."""

    kernel: str
    reference: str
    cpu: str
    threads: int
    rows: tuple[TypeRow, ...]
    verdict: Verdict

    @property
    def speeds(self) -> Speeds:
        """The speeds on the usual variant, for one line."""
        return next((row.speeds for row in self.rows if row.kind == TIMED), Speeds((), ()))

    @property
    def worst(self) -> float:
        """The largest normalized mean squared error of any type."""
        return max((r.agreement.nmse for r in self.rows if r.agreement), default=0.0)


def small_model() -> Recipe:
    """Return the fixed small model: a trained Phi-3 that this repository carries."""
    return Recipe(
        model="phi-3-nano", title="Phi-3-nano", source=Source(embedded="phi-3-nano"),
        variants=TYPES, assay=Assay(),
    )  # fmt: skip


def small_files(mint: Mint, bundle: Bundle) -> list[tuple[str, Blob]]:
    """Return the small model's FP16 file and one variant for each type, by name.

    Raises:
        BuildError, IntegrityError: it can't be converted or quantized.
    """
    recipe = small_model()
    source = fetch_source(mint, recipe, EMBEDDED)
    fp16 = make_fp16(mint, recipe, source, bundle)
    struck: Sequence[Struck] = tuple(strike_variants(mint, recipe, fp16, bundle, TYPES))
    return [(FP16, fp16.blob), *((s.variant, s.blob) for s in struck)]


def assay_kernel(
    mint: Mint, bundle: Bundle, reference: Bundle, *, gpu_layers: int = 0, timed: bool = True
) -> KernelAssay:
    """Compare a kernel with the reference kernel on every type; measure its speed if `timed`.

    Raises:
        BuildError, IntegrityError: the small model can't be made. That a kernel itself crashes,
            or gives NaN, is in the verdict.
    """
    files = small_files(mint, reference)
    setup = Setup(threads=mint.threads, gpu_layers=gpu_layers)
    log = mint.log("kernels", f"{bundle.kernel.name}-assay")
    rows: list[TypeRow] = []
    crashed = ""
    text = (EMBEDDED / "texts" / "assay.txt").read_text(encoding="utf-8")[:4000]
    try:
        for kind, blob in files:
            mint.report(f"{bundle.kernel.name}: {kind}")
            found, same = agree(mint, bundle, reference, blob, text, setup=setup, log=log)
            speeds = (
                speeds_of(mint, bundle, blob, race=SHORT, gpu_layers=gpu_layers, log=log)
                if timed
                else Speeds((), ())
            )
            rows.append(_row(kind, bundle, reference, (found, same), speeds))
    except (BuildError, IntegrityError) as error:
        crashed = f"{files[len(rows)][0]}: {error}"
    return KernelAssay(
        kernel=bundle.kernel.name,
        reference=reference.kernel.name,
        cpu=cpu_name(),
        threads=mint.threads,
        rows=tuple(rows),
        verdict=_judge(bundle.kernel.name, rows, crashed),
    )


def _row(
    kind: str,
    bundle: Bundle,
    reference: Bundle,
    compared: tuple[Agreement, Sameness],
    speeds: Speeds,
) -> TypeRow:
    found, same = compared
    itself = bundle.kernel.name == reference.kernel.name
    return TypeRow(
        kind=kind,
        agreement=None if itself else found,
        same_runs=same.across_runs,
        same_threads=same.across_threads,
        speeds=speeds,
    )


def _judge(kernel: str, rows: Sequence[TypeRow], crashed: str) -> Verdict:
    if crashed:
        return Verdict(AGREEMENT, False, f"kernel {kernel} failed on {crashed}")
    compared = [(row.kind, row.agreement) for row in rows if row.agreement is not None]
    facts: dict[str, Any] = {f"nmse_{kind}": found.nmse for kind, found in compared}
    said = [(kind, check_agreement(Gates(), found)) for kind, found in compared]
    wrong = [f"{kind}: {verdict.reason}" for kind, verdict in said if not verdict.passed]
    if wrong:
        return Verdict(AGREEMENT, False, "; ".join(wrong), facts)
    unsteady = [row.kind for row in rows if not row.same_runs]
    if unsteady:
        facts["unsteady"] = ", ".join(unsteady)
    if not compared:
        return Verdict(AGREEMENT, True, "the reference kernel: all others are compared with it")
    worst = max(found.nmse for _, found in compared)
    bound = Gates().max_logits_nmse
    return Verdict(
        AGREEMENT,
        True,
        f"{len(compared)} types within a normalized mean squared error of {worst:.1e} "
        f"(bound {bound:g})",
        facts,
    )


def keep(mint: Mint, found: KernelAssay) -> Blob:
    """Put the assay into the store, named by an action so that no collection removes it."""
    data = canonical_json({"kernel_assay": 1, **asdict(found)})
    action = Action(
        name="kernel-assay", inputs={}, tools={},
        arguments={"record": hashlib.sha256(data).hexdigest()},
    )  # fmt: skip
    made = perform(mint.store, action, lambda: Outcome(outputs={"r": mint.store.put_bytes(data)}))
    return made.outputs["r"]


def load(mint: Mint, blob: Blob) -> KernelAssay:
    """Read an assay back.

    Raises:
        IntegrityError: the object is missing, damaged or no such assay.
    """
    try:
        value = json.loads(mint.store.read(blob))
        if value.pop("kernel_assay") != 1:
            raise ValueError("format")
        rows = tuple(_row_of(row) for row in value["rows"])
        return KernelAssay(**{**value, "rows": rows, "verdict": Verdict(**value["verdict"])})
    except (ValueError, LookupError, TypeError) as error:
        raise IntegrityError(f"object {blob.sha256} is no kernel assay: {error}") from error


def _row_of(value: dict[str, Any]) -> TypeRow:
    found = value["agreement"]
    speeds = Speeds(
        *(tuple(SpeedAt(**at) for at in value["speeds"][k]) for k in ("prompt", "generation"))
    )
    agreement = None if found is None else Agreement(**found)
    return TypeRow(**{**value, "agreement": agreement, "speeds": speeds})
