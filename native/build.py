"""Bundles: a kernel with llama.cpp's tools and libraries in one folder, ready to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from quantmint.errors import UserError
from quantmint.home import Home
from quantmint.native.building.bundle import MADE_FROM, Bundle, put_together
from quantmint.native.building.options import (
    LADDER,
    OPTIONS,
    TOOLS,
    Report,
    quantizer_digest,
    tree_files_digest,
)
from quantmint.native.building.parallel import jobs
from quantmint.native.building.sdk import CUDA_ARCHITECTURES
from quantmint.native.building.trees import configure_quantizer
from quantmint.native.building.workshop import Workshop, machine_of, tree_for
from quantmint.native.host import machine_name
from quantmint.native.kernels import host_kernel
from quantmint.native.matrix import Kernel, load_matrix
from quantmint.native.pin import current_pin
from quantmint.native.source import unpack
from quantmint.native.toolchain import Toolchain, compiler_identity
from quantmint.registry.store import Store

__all__ = [
    "ALL_CPU",
    "CUDA_ARCHITECTURES",
    "LADDER",
    "MADE_FROM",
    "OPTIONS",
    "TOOLS",
    "Bundle",
    "Report",
    "build_all_cpu",
    "build_folder",
    "build_kernel",
    "build_kernels",
    "configure_quantizer",
    "converter_script",
    "jobs",
    "quantizer_digest",
]
ALL_CPU = "all-cpu"


def build_kernel(
    home: Home,
    store: Store,
    kernel: Kernel,
    report: Report,
    *,
    options: Mapping[str, str] | None = None,
) -> Bundle:
    """Build the kernel's bundle, or take it from the store; see `build_kernels`."""
    return build_kernels(home, store, [kernel], report, options=options)[0]


def build_kernels(
    home: Home,
    store: Store,
    kernels: Sequence[Kernel],
    report: Report,
    *,
    options: Mapping[str, str] | None = None,
) -> list[Bundle]:
    """Build one bundle for each kernel, or take them from the store.

    Kernels of one tree are compiled together. A kernel that is no CPU's gets this machine's best
    CPU kernel beside it. `options` are further CMake options (`CMAKE_CUDA_ARCHITECTURES`, say).

    Raises:
        BuildError: a tool or SDK is missing, or the build failed.
        SourceError: the llama.cpp source can't be fetched.
    """
    shop = Workshop(home, store, report, dict(options or {}))
    made = shop.parts(kernels)
    bundles = []
    for kernel in kernels:
        machine = machine_of(kernel)
        parts = {kernel.name: made[kernel.name]}
        if kernel.beside == "host":
            best = host_kernel()
            parts |= {best.name: shop.parts([best])[best.name]}
        bundles.append(put_together(store, kernel, kernel.name, shop.base(machine), parts))
    return bundles


def build_all_cpu(home: Home, store: Store, kernels: Sequence[Kernel], report: Report) -> Bundle:
    """Build the bundle for users' machines: all these CPU kernels; llama.cpp's loader picks.

    Its `kernel` is the best of them that this machine runs, or the least where none does.

    Raises:
        UserError: the kernels are not all CPU kernels of one machine.
        BuildError, SourceError: see `build_kernels`.
    """
    machines = {machine_of(kernel) for kernel in kernels}
    if len(machines) != 1 or any(kernel.kind != "cpu" for kernel in kernels):
        raise UserError(
            "a bundle of all CPU kernels takes CPU kernels of one machine",
            mend="quantmint kernels list  (it shows each kernel's kind and machine)",
        )
    (machine,) = machines
    shop = Workshop(home, store, report, {})
    made = shop.parts(kernels)
    best = host_kernel() if machine == machine_name() else kernels[0]
    chosen = best if best.name in made else kernels[0]
    return put_together(store, chosen, ALL_CPU, shop.base(machine), made)


def made_from(kernels: Sequence[Kernel]) -> dict[str, dict[str, object]]:
    """Return by name all that each kernel's bundle is made from and by, for code versions.

    It needs no configured tree; where no compiler is found it still has a value.
    """
    shared: dict[str, object] = {
        "llama_cpp": current_pin().sha256, "quantizer_sources": quantizer_digest(),
        "tree_files": tree_files_digest(), "options": dict(OPTIONS),
        "matrix_options": load_matrix().options, "tools": list(TOOLS),
    }  # fmt: skip
    compilers = {machine: compiler_identity(machine) for machine in {*map(machine_of, kernels)}}
    return {
        kernel.name: {
            **shared, "kernel_options": kernel.options, "target": kernel.target,
            "compiler": compilers[machine_of(kernel)],
        }
        for kernel in kernels
    }  # fmt: skip


def build_folder(home: Home, toolchain: Toolchain) -> Path:
    """Return the folder of the build tree of this machine's CPU kernels."""
    store = Store(home.store)
    return tree_for(home, store, host_kernel(), toolchain, {}).folder


def converter_script(home: Home, store: Store) -> Path:
    """Return the pinned tree's converter; its package and its gguf library lie beside it.

    Raises:
        SourceError: the llama.cpp source can't be fetched.
    """
    return unpack(store, current_pin(), home.work) / "convert_hf_to_gguf.py"
