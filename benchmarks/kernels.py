"""What the kernel matrix costs: one tree for all x86 kernels against separate llama.cpp builds.

    python benchmarks/kernels.py [--separate NAME]... [--kernel NAME]... [--out FILE]

1. One tree: configure once, build the tools and every CPU kernel of this machine's kind, in a
   fresh folder; CPU seconds of CMake and all compilers.
2. Separate: for each NAME a plain CMake build of the same tools with that level's instructions
   (GGML_NATIVE=OFF, no GGML_BACKEND_DL): CPU seconds; their mean times the number of kernels is
   what one build for each would cost.
3. Same bytes: every library and program of 1 against the one in the home's store, if it is there.
4. Null rebuild: `quantmint kernels build --all` where everything is in the store, wall seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from quantmint.files import sha256_of
from quantmint.home import Home, find_home
from quantmint.native.build import OPTIONS, TOOLS, build_kernels
from quantmint.native.building.ninja import compile_targets
from quantmint.native.building.options import tree_options
from quantmint.native.building.trees import BuildTree
from quantmint.native.host import machine_name
from quantmint.native.matrix import Kernel, kernel_named, matrix
from quantmint.native.pin import current_pin
from quantmint.native.toolchain import find_toolchain
from quantmint.process import Command, Limits, run
from quantmint.registry.store import Store

# The options of a plain build by the flags of a row: what ggml_add_cpu_backend_variant is given.
LEVELS = {
    "sse4_2": "GGML_SSE42", "avx": "GGML_AVX", "f16c": "GGML_F16C", "fma": "GGML_FMA",
    "avx2": "GGML_AVX2", "bmi2": "GGML_BMI2", "avx_vnni": "GGML_AVX_VNNI",
    "avx512f": "GGML_AVX512", "avx512vbmi": "GGML_AVX512_VBMI",
    "avx512_vnni": "GGML_AVX512_VNNI", "avx512_bf16": "GGML_AVX512_BF16",
    "amx_tile": "GGML_AMX_TILE", "amx_int8": "GGML_AMX_INT8",
}  # fmt: skip


def say(text: str) -> None:
    """Print progress to standard error."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


def spent() -> float:
    """Return the CPU seconds of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def linked_home(folder: Path) -> Home:
    """Return a fresh home below `folder` that shares the unpacked source with the real one."""
    home, real = Home(folder / "home"), find_home()
    home.work.mkdir(parents=True)
    for tree in real.work.glob("llama.cpp-*"):
        (home.work / tree.name).symlink_to(tree.resolve())
    return home


def one_tree(folder: Path, kernels: Sequence[Kernel]) -> tuple[float, float, Path]:
    """Build the tools and the kernels in one fresh tree; return CPU and wall seconds, and where."""
    home, chain = linked_home(folder), find_toolchain()
    tree = BuildTree(
        home=home, store=Store(home.store).open(), name="cpu", chain=chain,
        options=tree_options(kernels[0], chain, current_pin()), tools={},
    )  # fmt: skip
    before, started = spent(), time.monotonic()
    tree.configure(say)
    targets = [*TOOLS, *(kernel.target for kernel in kernels)]
    compile_targets(tree.folder, targets, chain, say, tree.logs / "bench.log")
    return spent() - before, time.monotonic() - started, tree.folder / "bin"


def separate(folder: Path, kernel: Kernel, source: Path) -> tuple[float, float]:
    """Build llama.cpp plainly for that level; return CPU and wall seconds."""
    chain = find_toolchain()
    levels = {option: "ON" if flag in kernel.run.cpu else "OFF" for flag, option in LEVELS.items()}
    options = {
        **{k: v for k, v in OPTIONS.items() if k != "GGML_CPU_ALL_VARIANTS"},
        **chain.options, **levels, "GGML_NATIVE": "OFF",
    }  # fmt: skip
    argv: list[str | Path] = [chain.cmake.path, "-S", source, "-B", folder, "-G", "Ninja"]
    argv += [f"-D{name}={value}" for name, value in options.items()]
    before, started = spent(), time.monotonic()
    run(Command(argv=argv, limits=Limits(wall_seconds=600)))
    compile_targets(folder, TOOLS, chain, say, folder / "bench.log")
    return spent() - before, time.monotonic() - started


def same_bytes(built: Path, kernels: Sequence[Kernel]) -> tuple[int, list[str]]:
    """Compare what was built with the home's bundles; return how many files, and which differ."""
    home = find_home()
    store = Store(home.store).open()
    stored = {
        file.path: file.blob.sha256
        for bundle in build_kernels(home, store, kernels, say)
        for file in bundle.tree.files
    }
    files = [p for p in built.iterdir() if p.is_file() and p.name in stored]
    return len(files), sorted(p.name for p in files if sha256_of(p) != stored[p.name])


def null_rebuild() -> float:
    """Return the wall seconds of building all kernels again, as a command."""
    argv = [sys.executable, "-m", "quantmint", "kernels", "build", "--all"]
    subprocess.run(argv, check=True, capture_output=True)
    started = time.monotonic()
    subprocess.run(argv, check=True, capture_output=True)
    return time.monotonic() - started


def main() -> int:
    """Measure, print a table, and write all numbers as JSON if a file is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--separate", action="append", metavar="NAME", help="x64 and zen4")
    parser.add_argument("--kernel", action="append", metavar="NAME", help="of the one tree; all")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    every = [k for k in matrix() if k.kind == "cpu" and machine_name() in k.machines]
    kernels = [kernel_named(n) for n in given.kernel] if given.kernel else every
    folder = Path(tempfile.mkdtemp(prefix="quantmint-bench-", dir=os.environ.get("TMPDIR")))
    try:
        found = measure(folder, kernels, given.separate or ["x64", "zen4"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if given.out:
        given.out.write_text(json.dumps(found, indent=2), encoding="utf-8")
    return 0 if not found["different"] else 1


def measure(folder: Path, kernels: Sequence[Kernel], names: Sequence[str]) -> dict[str, object]:
    """Do all measurements below `folder`, and print each as it is there."""
    cpu, wall, built = one_tree(folder, kernels)
    print(f"one tree, {len(kernels)} kernels and the tools: {cpu:.0f} CPU s, {wall:.0f} s")
    source = next((folder / "home" / "work").glob("llama.cpp-*")) / "vendor" / "llama.cpp"
    rows = {name: separate(folder / f"plain-{name}", kernel_named(name), source) for name in names}
    for name, (own, own_wall) in rows.items():
        print(f"separate build for {name}: {own:.0f} CPU s, {own_wall:.0f} s")
    scaled = len(kernels) * sum(own for own, _ in rows.values()) / len(rows)
    print(f"{len(kernels)} separate builds, scaled: {scaled:.0f} CPU s, {scaled / cpu:.1f} x")
    count, different = same_bytes(built, kernels)
    print(f"same bytes as in the store: {count - len(different)} of {count} files {different}")
    seconds = null_rebuild()
    print(f"null rebuild: {seconds:.2f} s")
    return {
        "kernels": [kernel.name for kernel in kernels], "one_tree_cpu_seconds": cpu,
        "separate_cpu_seconds": {name: own for name, (own, _) in rows.items()},
        "ratio": scaled / cpu, "files": count, "different": different, "null_seconds": seconds,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
