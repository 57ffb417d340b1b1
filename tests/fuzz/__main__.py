"""The long run: a million mutants through both readers (`make fuzz-gguf`)."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fuzz.differential import Findings, compare
from quantmint.home import find_home
from quantmint.native.build import build_kernel
from quantmint.native.kernels import host_kernel
from quantmint.registry.store import Store

SLICE = 50_000


def main() -> int:
    """Run the slices, telling each; return 1 if the readers disagreed anywhere."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--mutants", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--library", type=Path, help="libggml-base.so; built if not given")
    wanted = parser.parse_args()
    library = wanted.library or host_library()
    started = time.monotonic()
    slices = []
    for start in range(0, wanted.mutants, SLICE):
        indexes = range(start, min(start + SLICE, wanted.mutants))
        slices.append(compare(library, wanted.seed, indexes))
        print(f"{indexes.stop:>9,} mutants, {time.monotonic() - started:.0f} s", file=sys.stderr)
    return tell(slices, wanted.seed, time.monotonic() - started)


def host_library() -> Path:
    """Return llama.cpp's reader as this machine's kernel has it, built if need be."""
    home = find_home()
    store = Store(home.store).open()
    bundle = build_kernel(home, store, host_kernel(), lambda line: print(line, file=sys.stderr))
    return bundle.folder / "libggml-base.so"


def tell(slices: Sequence[Findings], seed: int, seconds: float) -> int:
    """Print the sums and the names of all that must not be."""
    for name in ("mutants", "accepted", "llama_accepted", "died_refused", "unpadded"):
        print(f"{name:<15} {sum(getattr(one, name) for one in slices):>10,}")
    for name in ("died", "only_ours", "escaped", "differs"):
        found = [index for one in slices for index in getattr(one, name)]
        print(f"{name:<15} {len(found):>10,}", *(f"mutant({seed}, {n})" for n in found[:5]))
    print(f"{'per second':<15} {sum(one.mutants for one in slices) / seconds:>10,.0f}")
    return 0 if all(one.is_clean for one in slices) else 1


if __name__ == "__main__":
    sys.exit(main())
