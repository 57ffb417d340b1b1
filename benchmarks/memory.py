"""Peak memory of convert + quantize on a generated checkpoint with the shapes of Phi-3.5-mini.

    python benchmarks/memory.py [--layers 32] [--variants Q4_K_M] [--keep FOLDER]

32 layers are 3.8 G weights: 7.6 GB of safetensors. The stages run as in a build, in a child; the
memory of that child and all its tools is sampled every 0.1 s from /proc. Two numbers: everything
resident (mapped files included, which the system may drop at any time), and anonymous memory,
which it can't.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from shaped import make_phi_35_mini_shaped

from helpers import seed
from quantmint.home import Home, find_home
from quantmint.native.pin import current_pin
from quantmint.native.source import unpack
from quantmint.registry.store import Store

STAGES = """
import sys
from pathlib import Path
from quantmint.assets.convert import make_fp16
from quantmint.assets.mint import open_mint
from quantmint.assets.recipe import Recipe, Source
from quantmint.assets.source import fetch_source
from quantmint.assets.variants import strike_variants
from quantmint.native.build import build_kernel
from quantmint.native.kernels import host_kernel
folder, variants = Path(sys.argv[1]), sys.argv[2].split(",")
mint = open_mint(lambda line: print(line[:150], flush=True))
recipe = Recipe(model="shaped", source=Source(path=str(folder)), variants=tuple(variants))
bundle = build_kernel(mint.home, mint.store, host_kernel(), mint.report)
print("READY", flush=True)
source = fetch_source(mint, recipe, folder)
fp16 = make_fp16(mint, recipe, source, bundle)
for made in strike_variants(mint, recipe, fp16, bundle, variants):
    print(made.variant, made.header.size, flush=True)
"""


def memory_of(pid: int) -> tuple[int, int]:
    """Return resident and anonymous bytes of a process and all its descendants."""
    resident = anonymous = 0
    todo = [pid]
    while todo:
        one = todo.pop()
        try:
            rows = Path(f"/proc/{one}/smaps_rollup").read_text(encoding="utf-8").splitlines()
            for task in Path(f"/proc/{one}/task").iterdir():
                todo += [int(c) for c in (task / "children").read_text(encoding="utf-8").split()]
        except (OSError, ProcessLookupError):
            continue
        sizes = {row.split()[0]: int(row.split()[1]) << 10 for row in rows[1:]}
        resident += sizes.get("Pss:", 0)
        anonymous += sizes.get("Anonymous:", 0)
    return resident, anonymous


def run_stages(folder: Path, variants: str, home: Path) -> tuple[int, int, float]:
    """Run the stages in a child; return its peaks in bytes, and seconds since it was ready."""
    child = subprocess.Popen(
        [sys.executable, "-c", STAGES, str(folder), variants],
        env={**os.environ, "QUANTMINT_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    for line in child.stdout:
        print(line, end="", flush=True)
        if line == "READY\n":
            break
    started = time.monotonic()
    threading.Thread(target=lambda: print(child.stdout.read()), daemon=True).start()
    resident = anonymous = 0
    while child.poll() is None:
        now = memory_of(child.pid)
        resident, anonymous = max(resident, now[0]), max(anonymous, now[1])
        time.sleep(0.1)
    if child.returncode:
        raise SystemExit(f"the stages failed with exit code {child.returncode}")
    return resident, anonymous, time.monotonic() - started


def main() -> None:
    """Generate, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--variants", default="Q4_K_M")
    parser.add_argument("--keep", type=Path, help="work below this folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.keep) as temporary:
        work = Path(temporary)
        home = Home(work / "home")
        if find_home().store.is_dir():
            seed(home, find_home())  # a kernel that was built already need not be built again
        source = unpack(Store(home.store).open(), current_pin(), home.work)
        folder = make_phi_35_mini_shaped(
            work / "Phi-3.5-mini-shaped", llama_source=source, layers=options.layers
        )
        size = sum(path.stat().st_size for path in folder.iterdir())
        resident, anonymous, seconds = run_stages(folder, options.variants, home.root)
    print(f"checkpoint {size / 1e9:.2f} GB, source + convert + quantize {seconds:.0f} s")
    print(f"peak resident {resident / 1e9:.2f} GB (mapped files included; target 4 GB)")
    print(f"peak anonymous {anonymous / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
