"""The quantization kernels alone, against ggml's functions.

    python benchmarks/quantizer.py types [--seconds S]   each type's speed, on one core
    python benchmarks/quantizer.py sweep [--blocks N]    bytes of hostile and ordinary blocks

`sweep` is the long test: ten million blocks of each type, half of them with an importance matrix
(all, where a type needs one), through every instruction set that this processor has. Most of its
time is ggml's own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from quantmint.home import find_home
from quantmint.native.build import build_folder, build_kernel, configure_quantizer
from quantmint.native.kernels import host_kernel
from quantmint.native.pin import current_pin
from quantmint.native.source import unpack
from quantmint.native.toolchain import find_toolchain
from quantmint.registry.store import Store

BLOCKS = 10_000_000


def program(target: str) -> Path:
    """Build a program of native/quantizer; return it, beside the libraries that it runs with."""
    home = find_home()
    store = Store(home.store).open()
    bundle = build_kernel(home, store, host_kernel(), lambda line: print(line, file=sys.stderr))
    chain = find_toolchain()
    folder = build_folder(home, chain) / "quantizer"
    source = unpack(store, current_pin(), home.work)
    configure_quantizer(source, bundle.folder, folder, chain, home.logs / "native")
    build = [chain.cmake.path, "--build", folder, "--target", target]
    subprocess.run(build, check=True, stdout=sys.stderr)
    beside = home.work / "quantizer-programs"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    for library in bundle.folder.glob("lib*.so*"):
        (beside / library.name).symlink_to(library)
    return Path(shutil.copy2(folder / target, beside / target))


def main() -> int:
    """Run the chosen program; its exit code is 1 if a byte differed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=["types", "sweep"])
    parser.add_argument("--type", default="all", help="names as ggml has them: q4_K,iq4_xs")
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="of each type")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each set of each type")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    given = parser.parse_args()
    if given.what == "types":
        words = [program("quantmint-quant-bench"), "--seconds", given.seconds]
    else:
        words = [program("quantmint-quant-verify"), "--blocks", given.blocks]
        words += ["--threads", given.threads]
    words += ["--type", given.type]
    return subprocess.run([str(word) for word in words], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
