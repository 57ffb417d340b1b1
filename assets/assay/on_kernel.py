"""One file on one kernel: agreement with the reference kernel, determinism, speed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from quantmint.assets.assay.bench import Bench
from quantmint.assets.mint import Mint
from quantmint.files import digest_of
from quantmint.native.build import Bundle
from quantmint.native.evaluation.engine import evaluate
from quantmint.native.evaluation.jobs import Jobs, Probe, Setup
from quantmint.native.evaluation.results import Agreement, Sameness, SpeedAt, Speeds
from quantmint.native.evaluation.speed import Race, measure_speed
from quantmint.native.host import cpu_name
from quantmint.quiet import quiet
from quantmint.registry.actions import Action, Outcome, perform
from quantmint.registry.store import Blob

PROBE_TOKENS: Final = 32
PROBE_CHARACTERS: Final = 4000
USUAL: Final = Race(prompts=(128, 512), generations=(32,), repetitions=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class OnKernel:
    """What a file was measured at on one kernel; no agreement where it is the reference itself."""

    kernel: str
    agreement: Agreement | None
    speeds: Speeds


def probe_text(path: Path) -> str:
    """Return the beginning of a text, for the few tokens whose logits are compared."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(PROBE_CHARACTERS)


def logits_of(
    mint: Mint, bundle: Bundle, gguf: Blob, text: str, *, setup: Setup, log: Path
) -> tuple[Blob, Sameness]:
    """Return a file's logits on the first tokens of `text` (an .npy object), and how they repeat.

    Shape (2 x tokens, vocabulary): read at once, then one by one. Thread counts 1 and `setup`'s
    are tried, each twice.

    Raises:
        IntegrityError, BuildError: see `evaluate`.
    """
    threads = tuple(sorted({1, setup.threads}))
    action = Action(
        name="probe-logits",
        inputs={"gguf": gguf.sha256},
        tools={"bundle": bundle.tree.sha256},
        arguments={
            "text": digest_of(text), "tokens": PROBE_TOKENS, "threads": threads,
            "gpu": setup.gpu_layers,
        },
    )  # fmt: skip

    def measure() -> Outcome:
        with mint.store.stage() as stage:
            target = stage / "logits.npy"
            probe = Probe(text=text, target=target, tokens=PROBE_TOKENS, threads=threads)
            path = mint.store.path(gguf.sha256)
            found = evaluate(bundle, path, Jobs(probe=probe), setup=setup, log=log)
            assert found.sameness is not None
            blob = mint.store.adopt(target)
        return Outcome(outputs={"logits": blob}, facts=asdict(found.sameness))

    outcome = perform(mint.store, action, measure)
    digests = tuple((int(n), tuple(runs)) for n, runs in outcome.facts["digests"])
    return outcome.outputs["logits"], Sameness(digests=digests)


def agree(
    mint: Mint, bundle: Bundle, reference: Bundle, gguf: Blob, text: str, *, setup: Setup, log: Path
) -> tuple[Agreement, Sameness]:
    """Compare a file's logits on `bundle` with those on `reference`.

    Raises:
        IntegrityError, BuildError: see `evaluate`.
    """
    plain = Setup(threads=setup.threads)
    base, _ = logits_of(mint, reference, gguf, text, setup=plain, log=log.with_suffix(".ref.log"))
    ours, same = logits_of(mint, bundle, gguf, text, setup=setup, log=log)
    one, other = (mint.store.path(blob.sha256) for blob in (base, ours))
    # NumPy is wanted here alone, not whenever the graph is loaded.
    from quantmint.native.evaluation.agreement import compare_logits

    return compare_logits(one, other, kernel=reference.kernel.name), same


def speeds_of(
    mint: Mint, bundle: Bundle, gguf: Blob, *, race: Race = USUAL, gpu_layers: int, log: Path
) -> Speeds:
    """Measure tokens per second, once per bytes, kernel, CPU and thread count.

    `race` says the sizes; threads and layers are the machine's and the caller's.

    Raises:
        BuildError: the model does not load.
    """
    race = replace(race, threads=mint.threads, gpu_layers=gpu_layers)
    action = Action(
        name="measure-speed",
        inputs={"gguf": gguf.sha256},
        tools={"bundle": bundle.tree.sha256},
        arguments={"cpu": cpu_name(), "race": asdict(race)},
    )

    def measure() -> Outcome:
        with quiet(mint.home, mint.report):
            found = measure_speed(bundle, mint.store.path(gguf.sha256), race, log=log)
        return Outcome(facts=asdict(found))

    return _speeds(perform(mint.store, action, measure).facts)


def _speeds(facts: Mapping[str, Any]) -> Speeds:
    return Speeds(
        prompt=tuple(SpeedAt(**row) for row in facts["prompt"]),
        generation=tuple(SpeedAt(**row) for row in facts["generation"]),
    )


def measure_on(
    bench: Bench, bundle: Bundle, reference: Bundle | None, variant: str, blob: Blob
) -> OnKernel:
    """Measure one variant on one kernel; `reference` is None where there is nothing to compare.

    Raises:
        IntegrityError, BuildError: it does not load there, or gives NaN or infinity.
    """
    log = bench.log(f"{variant}-kernel", bundle)
    layers = bench.recipe.assay.gpu_layers
    agreement = None
    if reference is not None and reference.kernel.name != bundle.kernel.name:
        agreement, _ = agree(
            bench.mint, bundle, reference, blob, probe_text(bench.text), setup=bench.setup, log=log
        )
    speeds = speeds_of(bench.mint, bundle, blob, gpu_layers=layers, log=log)
    return OnKernel(kernel=bundle.kernel.name, agreement=agreement, speeds=speeds)
