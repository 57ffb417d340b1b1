"""Arm kernels on another machine: cross-compiled, run under qemu-user, compared with x64's logits.

    python benchmarks/arm.py [--kernels armv8.0,armv8.6-i8mm] [--variants Q8_0,Q4_K_M]

Needs g++-aarch64-linux-gnu and qemu-user. Once for each release of the kernel matrix: the emulator
is some fifty times slower than a processor. Exit code 1 if a kernel's error is beyond the bound.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from quantmint.assets.assay.bench import EMBEDDED
from quantmint.assets.kernel_assay import small_files
from quantmint.assets.mint import Mint, open_mint
from quantmint.assets.recipe import Gates
from quantmint.native.build import Bundle, build_kernel
from quantmint.native.evaluation.by_tool import compare_log_probabilities, write_log_probabilities
from quantmint.native.evaluation.jobs import Reading
from quantmint.native.kernels import kernel_named, reference_kernel

# An emulated processor that has the instructions of the row and, where there is one, no more.
PROCESSORS = {
    "armv8.0": "cortex-a53",
    "armv8.2-dotprod": "neoverse-n1",
    "armv8.2-fp16": "neoverse-n1",
}
READING = Reading(context=128, chunks=4)
BOUND = Gates().max_logits_nmse


def emulated(bundle: Bundle) -> Bundle:
    """Return the bundle so that its programs run on the right emulated processor."""
    program, *more = bundle.runner
    cpu = PROCESSORS.get(bundle.kernel.name, "max")
    return replace(bundle, runner=(program, "-cpu", cpu, *more))


def log_probabilities(mint: Mint, bundle: Bundle, model: Path, folder: Path) -> Path:
    """Return the file of a kernel's log-probabilities on the first tokens of the assay's text."""
    target = folder / f"{bundle.kernel.name}.logprobs"
    write_log_probabilities(
        bundle, model, EMBEDDED / "texts" / "assay.txt", READING, threads=1,
        log=mint.log("kernels", f"{bundle.kernel.name}-arm"), target=target,
    )  # fmt: skip
    return target


def main() -> int:
    """Build, run, print a line for each kernel and variant."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kernels", default="armv8.0,armv8.2-dotprod,armv8.6-i8mm")
    parser.add_argument("--variants", default="Q8_0,Q4_K_M")
    given = parser.parse_args()
    mint = open_mint(lambda line: print(line, file=sys.stderr, flush=True))
    reference = build_kernel(mint.home, mint.store, reference_kernel(), mint.report)
    files = dict(small_files(mint, reference))
    bad = 0
    print(f"{'kernel':20}{'variant':10}{'NMSE':>10}{'same top':>10}{'tokens':>8}")
    for name in given.kernels.split(","):
        bundle = build_kernel(mint.home, mint.store, kernel_named(name), mint.report)
        for variant in given.variants.split(","):
            model = mint.store.path(files[variant].sha256)
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch)
                base = log_probabilities(mint, reference, model, folder)
                ours = log_probabilities(mint, emulated(bundle), model, folder)
                found = compare_log_probabilities(base, ours, kernel=reference.kernel.name)
            bad += not (found.finite and found.nmse <= BOUND)
            row = f"{found.nmse:>10.1e}{found.top1:>10.1%}{found.tokens:>8}"
            print(f"{name:20}{variant:10}{row}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
