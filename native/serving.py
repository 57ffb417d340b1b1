"""Becomes `quantmint.registry.talking` on this machine's best kernel that is at hand.

`quantmint run` and `serve` start it as a process, with a session as JSON in the arguments. A CPU
kernel is built if need be. A GPU's is not, for that takes long and its SDK: it is used where it was
built before, and where it finds no GPU after all, the CPU's beside it takes over.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from quantmint.errors import QuantmintError
from quantmint.home import Home, find_home
from quantmint.native.at_hand import gpu_kernels, library_at_hand
from quantmint.native.build import build_kernel
from quantmint.native.kernels import choose, host_kernel
from quantmint.native.matrix import Kernel, kernel_named
from quantmint.registry.store import Store


def main() -> None:
    """Find or build the kernel, and hand over to the process that runs the model."""
    session: dict[str, Any] = json.loads(sys.argv[1])
    try:
        home = find_home()
        kernel, library = best_library(
            home, Store(home.store).open(), session["kernel_name"], gpu=session["gpu_layers"] != 0
        )
    except QuantmintError as error:
        _report(f"error: {error}")
        sys.exit(error.exit_code)
    session |= {
        "kernel": str(library), "kernel_name": kernel.name, "is_gpu_kernel": is_for_gpu(kernel),
    }  # fmt: skip
    env = {**os.environ, "LLAMA_CPP_LIB_PATH": str(library.parent)}
    argv = [sys.executable, "-m", "quantmint.registry.talking", json.dumps(session)]
    os.execve(sys.executable, argv, env)  # noqa: S606 - a list, no shell


def best_library(home: Home, store: Store, wanted: str | None, *, gpu: bool) -> tuple[Kernel, Path]:
    """Return the kernel to run on, and its library in a bundle of its own.

    Args:
        home: where kernels are built.
        store: its store, open.
        wanted: the name of a kernel, None for the best at hand.
        gpu: whether a GPU may be used.

    Raises:
        UserError: there is no such kernel, or this machine's CPU can't run it.
        BuildError, SourceError: it could not be built.
    """
    if wanted is not None:
        kernel = kernel_named(wanted)
        if not is_for_gpu(kernel):
            (kernel,) = choose([wanted])
        library = library_at_hand(store, kernel) if is_for_gpu(kernel) else None
        return kernel, library or _built(home, store, kernel)
    for kernel in gpu_kernels() if gpu else ():
        library = library_at_hand(store, kernel)
        if library is not None:
            return kernel, library
        _report(
            f"a GPU is here, and its kernel is not built: quantmint kernels build {kernel.name}"
        )
    host = host_kernel()
    return host, _built(home, store, host)


def is_for_gpu(kernel: Kernel) -> bool:
    """Return whether the kernel is for a device of its own."""
    return kernel.force.device is not None


def _built(home: Home, store: Store, kernel: Kernel) -> Path:
    return build_kernel(home, store, kernel, _report).kernel_library


def _report(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    main()
