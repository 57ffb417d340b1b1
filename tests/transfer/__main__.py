"""Both matrices: `make transfer-matrix`. Prints a table, and fails if anything is wrong."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from quantmint.registry.leases import release_all

from . import xet_matrix
from .matrix import BEHAVIOURS, cases, run_all, sample


def main() -> None:
    """Run it, and say how it ended."""
    parser = argparse.ArgumentParser(prog="python -m transfer", description=__doc__)
    parser.add_argument("--sample", type=int, help="so many cases instead of all")
    parser.add_argument("--seed", type=int, default=1)
    words = parser.parse_args()
    chosen = sample(words.seed, words.sample) if words.sample else cases()
    started = time.monotonic()
    counts: Counter[tuple[str, bool, str]] = Counter()
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        for ended in run_all(chosen, Path(folder)):
            counts[ended.case.behaviour, ended.case.stays, ended.how] += 1
            if ended.problem is not None:
                problems.append(f"{ended.case}: {ended.problem}")
                print(problems[-1], flush=True)
        release_all()
    for behaviour in BEHAVIOURS:
        rows = {
            stays: ", ".join(
                f"{count} {how}"
                for (name, kind, how), count in sorted(counts.items())
                if name == behaviour and kind == stays
            )
            for stays in (False, True)
        }
        print(f"{behaviour:26} once: {rows[False]:12} lasting: {rows[True]}")
    right = sum(count for (_, _, how), count in counts.items() if how == "right")
    print(
        f"{len(chosen)} cases ({len(chosen) // 2} x once and lasting) in "
        f"{time.monotonic() - started:.0f} s: {right} right, "
        f"{len(chosen) - right} refused by type, {len(problems)} problems"
    )
    wrong = by_xet()
    sys.exit(bool(problems) or wrong)


def by_xet() -> bool:
    """Run the matrix of xet; return whether anything was wrong."""
    started = time.monotonic()
    chosen = xet_matrix.cases()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(HF_XET_CACHE=f"{folder}/xet", HF_XET_TELEMETRY_ENABLED="0")
        for ended in xet_matrix.run_all(chosen, Path(folder) / "stores"):
            if ended.problem is not None:
                wrong += 1
                print(f"{ended.case}: {ended.problem}", flush=True)
        release_all()
    print(f"{len(chosen)} cases of xet in {time.monotonic() - started:.0f} s: {wrong} problems")
    return wrong > 0


if __name__ == "__main__":
    main()
