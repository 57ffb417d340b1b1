"""The assay of eight variants against llama-perplexity run by hand: `make bench-assay`.

Ours: FP16's log-probabilities at every context in one process, then one process for each variant,
which loads it once and compares at every context. By hand, with the same threads and chunks:

- `for each`: for every variant and context, `--kl-divergence-base` on the FP16 file, then
  `--kl-divergence` on the variant: 32 runs for eight variants and two contexts;
- `base once`: the FP16 file's logits are kept for all variants: 2 + 16 runs.

Both are printed, in wall and in CPU seconds; and the largest difference between our numbers and
those that llama-perplexity prints, in units of its last printed digit.

    python benchmarks/assay.py [--model F16.gguf] [--readings 512x16,1024x8] [--threads 2] [--json]

Without --model it converts phi-3-nano. Variants are struck by llama-quantize beforehand.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantmint.assets.sources.local import embedded_folder
from quantmint.home import find_home
from quantmint.native import tools
from quantmint.native.build import Bundle, build_kernel, converter_script
from quantmint.native.evaluation.engine import evaluate
from quantmint.native.evaluation.jobs import Basing, Jobs, Reading, Setup
from quantmint.native.evaluation.results import Divergence
from quantmint.native.kernels import host_kernel
from quantmint.registry.store import Store

EIGHT = ["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_M", "IQ4_XS", "Q2_K"]
TRIES = 4
# Half a unit is rounding. These are single tokens' values, whose float32 sums in another order
# differ in the sixth decimal; means are over thousands.
SINGLE = {"kld_max", "kld_p99", "kld_p999", "kld_median"}
NUMBER = r"\s*:\s*(-?[\d.]+)"
ERROR = NUMBER + r"\s*±\s*([\d.]+)"
# What llama-perplexity calls a number, our name for it, and what one of its units is worth.
PRINTED = [
    (r"Mean PPL\(Q\)" + ERROR, ("ppl", "ppl_error"), 1.0),
    (r"Mean PPL\(base\)" + ERROR, ("base_ppl", "base_ppl_error"), 1.0),
    (r"Mean PPL\(Q\)/PPL\(base\)" + ERROR, ("ppl_ratio", "ppl_ratio_error"), 1.0),
    (r"Mean    KLD" + ERROR, ("kld_mean", "kld_error"), 1.0),
    (r"Maximum KLD" + NUMBER, ("kld_max",), 1.0),
    (r"99\.9%   KLD" + NUMBER, ("kld_p999",), 1.0),
    (r"99\.0%   KLD" + NUMBER, ("kld_p99",), 1.0),
    (r"Median  KLD" + NUMBER, ("kld_median",), 1.0),
    (r"RMS Δp    " + ERROR, ("rms_dp", "rms_dp_error"), 0.01),
    (r"Same top p" + ERROR, ("top1", "top1_error"), 0.01),
]


@dataclass
class Cost:
    """Seconds on the clock and of all cores."""

    wall: float = 0.0
    cpu: float = 0.0

    def add(self, work: Callable[[], Any]) -> Any:  # noqa: ANN401
        """Do `work` in child processes, and count what it took."""
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        result = work()
        self.wall += time.monotonic() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.cpu += after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return result


@dataclass
class Bench:
    """The programs, files and settings of a run, and what was found."""

    bundle: Bundle
    source: Path
    text: Path
    readings: list[Reading]
    threads: int
    folder: Path
    patient: bool = False
    ours: Cost = field(default_factory=Cost)
    base_each: Cost = field(default_factory=Cost)
    base_once: Cost = field(default_factory=Cost)
    compared: Cost = field(default_factory=Cost)
    differences: dict[str, tuple[float, str]] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def evaluate(self, model: Path, jobs: Jobs) -> tuple[Divergence, ...]:
        """Do ours, in its own process."""
        setup = Setup(threads=self.threads, patient=self.patient)
        return evaluate(
            self.bundle, model, jobs, setup=setup, log=self.folder / "ours.log"
        ).divergences

    def by_hand(self, model: Path, reading: Reading, *more: str | Path) -> str:
        """Run llama-perplexity, and return what it printed."""
        argv = [
            *self.bundle.command("llama-perplexity"), "-m", model, "-f", self.text,
            "-c", str(reading.context), "-t", str(self.threads), *more,
        ]  # fmt: skip
        env = {**os.environ, **(tools.PATIENT if self.patient else {})}
        done = subprocess.run(argv, capture_output=True, text=True, check=True, env=env)
        return done.stdout + done.stderr

    def base_by_hand(self, reading: Reading) -> Path:
        """Write FP16's logits as one does by hand."""
        path = self.folder / f"by-hand-{reading.context}"
        path.unlink(missing_ok=True)
        self.by_hand(self.source, reading, "--chunks", str(reading.chunks),
                     "--kl-divergence-base", path)  # fmt: skip
        return path

    def compared_by_hand(self, model: Path, reading: Reading, words: Sequence[str | Path]) -> str:
        """Compare as one does by hand; a run that lost its last lines is done again, uncounted.

        The tool can end before its log's thread has written all of it.
        """
        for _ in range(TRIES):
            cost = Cost()
            text: str = cost.add(lambda: self.by_hand(model, reading, *words))
            if all(re.search(pattern, text) for pattern, _, _ in PRINTED):
                self.compared.wall += cost.wall
                self.compared.cpu += cost.cpu
                return text
        raise SystemExit(f"llama-perplexity printed no statistics for {model.name}:\n{text}")

    def variant(self, name: str, model: Path, *, first: bool) -> None:
        """Measure one variant on both sides, in turns, and compare the numbers."""
        printed = []
        for reading in self.readings:
            cost = Cost()
            path = cost.add(lambda r=reading: self.base_by_hand(r))
            for total in (self.base_each, self.base_once) if first else (self.base_each,):
                total.wall, total.cpu = total.wall + cost.wall, total.cpu + cost.cpu
            words = ("--kl-divergence", "--kl-divergence-base", path)
            printed.append(self.compared_by_hand(model, reading, words))
        jobs = Jobs(divergence=self.folder / "bases")
        found = self.ours.add(lambda: self.evaluate(model, jobs))
        for value, text in zip(found, printed, strict=True):
            self.compare(f"{name} at {value.context}", value, text)
            self.rows.append({
                "variant": name, "context": value.context, "rope": value.rope, "ppl": value.ppl,
                "kld": value.kld_mean, "top1": value.top1, "bytes": model.stat().st_size,
            })  # fmt: skip

    def compare(self, where: str, value: Divergence, text: str) -> None:
        """Note how far our numbers are from the printed ones, in their last digit."""
        for pattern, names, unit in PRINTED:
            found = re.search(pattern, text)
            if found is None:
                raise SystemExit(f"llama-perplexity printed no {names[0]} for {where}:\n{text}")
            for name, digits in zip(names, found.groups(), strict=True):
                last = 10 ** -len(digits.partition(".")[2])
                off = abs(getattr(value, name) / unit - float(digits)) / last
                if off > self.differences.get(name, (-1.0, ""))[0]:
                    self.differences[name] = (off, where)


def measure(bench: Bench, types: list[str]) -> dict[str, Any]:
    """Run both sides and return all numbers."""
    models = {name: strike(bench, name) for name in types}
    basing = Basing(text=bench.text, readings=tuple(bench.readings), folder=bench.folder / "bases")
    bench.by_hand(bench.source, bench.readings[0], "--chunks", "1")  # both find warm files
    bench.ours.add(lambda: bench.evaluate(bench.source, Jobs(basing=basing)))
    for name, model in models.items():
        bench.variant(name, model, first=name == types[0])
        print(f"{name} done", file=sys.stderr, flush=True)
    each = Cost(
        bench.base_each.wall + bench.compared.wall, bench.base_each.cpu + bench.compared.cpu
    )
    once = Cost(
        bench.base_once.wall + bench.compared.wall, bench.base_once.cpu + bench.compared.cpu
    )
    return {
        "model": bench.source.name, "threads": bench.threads, "rows": bench.rows,
        "readings": [f"{r.context}x{r.chunks}" for r in bench.readings],
        "seconds": {
            "ours": vars(bench.ours), "for each": vars(each), "base once": vars(once),
        },
        "differences": bench.differences,
    }  # fmt: skip


def strike(bench: Bench, name: str) -> Path:
    """Make one variant."""
    target = bench.folder / f"{name}.gguf"
    job = tools.Quantizing(source=bench.source, target=target, ftype=name, threads=bench.threads)
    tools.quantize(bench.bundle, job, report=lambda _: None, log=bench.folder / "quantize.log")
    return target


def report(result: dict[str, Any]) -> str:
    """Return the numbers as text."""
    seconds = result["seconds"]
    ours = seconds["ours"]
    variants = len(result["rows"]) // len(result["readings"])
    lines = [
        f"{result['model']}, {variants} variants, {result['threads']} threads",
        f"context x chunks: {', '.join(result['readings'])}",
        f"{'':32}{'wall s':>9}{'CPU s':>9}{'ours is, wall':>15}{'CPU':>7}",
        f"{'ours':32}{ours['wall']:9.1f}{ours['cpu']:9.1f}",
    ]
    for side in ("for each", "base once"):
        wall, cpu = seconds[side]["wall"], seconds[side]["cpu"]
        lines.append(
            f"{'llama-perplexity, ' + side:32}{wall:9.1f}{cpu:9.1f}"
            f"{ours['wall'] / wall:14.2f}x{ours['cpu'] / cpu:6.2f}x"
        )
    lines.append("largest difference, in units of llama-perplexity's last printed digit:")
    for name, (off, where) in result["differences"].items():
        lines.append(f"  {name:16}{off:8.2f}  {where}")
    lines.append(f"{'variant':10}{'context':>8}{'MB':>9}{'PPL':>10}{'KLD':>10}{'top-1':>9}")
    lines += [
        f"{row['variant']:10}{row['context']:8}{row['bytes'] / 1e6:9.1f}{row['ppl']:10.4f}"
        f"{row['kld']:10.5f}{row['top1']:9.2%}"
        for row in result["rows"]
    ]
    return "\n".join(lines)


def nano(bundle_home: Path, folder: Path) -> Path:
    """Convert phi-3-nano to FP16."""
    home = find_home()
    store = Store(bundle_home).open()
    target = folder / "phi-3-nano-F16.gguf"
    tools.convert(
        converter_script(home, store), embedded_folder("phi-3-nano"), target,
        report=lambda _: None, log=folder / "convert.log",
    )  # fmt: skip
    return target


def parse_reading(word: str) -> Reading:
    """Read `512x16`: context x chunks."""
    context, chunks = word.split("x")
    return Reading(int(context), int(chunks))


def main() -> int:
    """Measure and print; exit code 1 if a number is off by more than rounding."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, help="an FP16 file instead of phi-3-nano")
    parser.add_argument("--readings", default="512x32,1024x16", help="context x chunks, ...")
    parser.add_argument("--types", default=",".join(EIGHT))
    parser.add_argument("--text", type=Path, help="instead of the embedded assay text")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--patient",
        action="store_true",
        help="threads of both sides sleep while they wait: for a busy machine",
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    home = find_home()
    store = Store(home.store).open()
    bundle = build_kernel(home, store, host_kernel(), lambda line: print(line, file=sys.stderr))
    text = arguments.text or embedded_folder("texts") / "assay.txt"
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as scratch:
        folder = Path(scratch)
        bench = Bench(
            bundle, arguments.model or nano(home.store, folder), text,
            [parse_reading(word) for word in arguments.readings.split(",")],
            arguments.threads, folder, arguments.patient,
        )  # fmt: skip
        result = measure(bench, arguments.types.split(","))
    print(json.dumps(result, indent=2) if arguments.json else report(result))
    worst = {name: off for name, (off, _) in result["differences"].items()}
    return 1 if any(off > (5 if name in SINGLE else 1) for name, off in worst.items()) else 0


if __name__ == "__main__":
    sys.exit(main())
