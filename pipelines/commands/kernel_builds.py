"""`quantmint kernels build`."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from typing import Any

import click

from quantmint.assets.mint import Mint, open_mint
from quantmint.errors import BuildError, UserError
from quantmint.files import human_bytes
from quantmint.native.build import (
    ALL_CPU,
    CUDA_ARCHITECTURES,
    Bundle,
    build_all_cpu,
    build_kernels,
)
from quantmint.native.host import machine_name
from quantmint.native.kernels import host_kernel
from quantmint.native.matrix import Kernel, kernel_named, matrix
from quantmint.native.probes.answers import missing_to_build
from quantmint.native.probes.look import look
from quantmint.pipelines.commands.build import show_progress


@click.command("build")
@click.argument("names", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All CPU kernels of the machine.")
@click.option(
    "--all-cpu", is_flag=True, help="One bundle with all of them: llama.cpp picks on each machine."
)
@click.option("--machine", default=None, help="x86_64 or aarch64; this machine by default.")
@click.option(
    "--cuda-architectures",
    default=None,
    help="As CMake names them, '86;90', or 'fat'; this machine's GPU's by default, else 90.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result for programs.")
def build(
    *,
    names: tuple[str, ...],
    every: bool,
    all_cpu: bool,
    machine: str | None,
    cuda_architectures: str | None,
    as_json: bool,
) -> None:
    """Build the bundles of the named kernels; of this machine's best one by default.

    A kernel that this CPU can't execute is built all the same, if the compiler can.
    """
    started = time.monotonic()
    progress = show_progress()
    mint = open_mint(logging.getLogger("quantmint").info)
    bundles: list[tuple[str, Bundle]] = []
    cpu = _cpu_kernels(machine or machine_name(), mint) if every or all_cpu else []
    kernels = [*(cpu if every else []), *_named(names)]
    if not kernels and not all_cpu:
        kernels = [host_kernel()]
    options = {CUDA_ARCHITECTURES: cuda_architectures} if cuda_architectures else {}
    made = build_kernels(mint.home, mint.store, kernels, mint.report, options=options)
    bundles = [(bundle.kernel.name, bundle) for bundle in made]
    if all_cpu:
        bundles.append((ALL_CPU, build_all_cpu(mint.home, mint.store, cpu, mint.report)))
    progress.flush()
    _show(bundles, time.monotonic() - started, as_json=as_json)


def _named(names: Sequence[str]) -> list[Kernel]:
    """Return the kernels of those names, if this machine has what building them needs."""
    kernels = [host_kernel() if name == "host" else kernel_named(name) for name in names]
    here = look(kernels) if kernels else None
    for kernel in kernels:
        missing = missing_to_build(kernel, here) if here else ()
        if missing:
            raise BuildError(
                f"kernel {kernel.name!r} can't be built on this machine: "
                + "; ".join(one.text for one in missing),
                mend=next((one.mend for one in missing if one.mend), None),
            )
    return list({kernel.name: kernel for kernel in kernels}.values())


def _cpu_kernels(machine: str, mint: Mint) -> list[Kernel]:
    """Return the machine's CPU kernels that can be built here; say which can't, and why."""
    rows = [k for k in matrix() if k.kind == "cpu" and machine in k.machines]
    here = look(rows)
    found = []
    for kernel in (k for k in rows if k.system == here.system):
        missing = missing_to_build(kernel, here)
        if missing:
            mint.report(f"{kernel.name} is left out: {'; '.join(one.text for one in missing)}")
        else:
            found.append(kernel)
    if not found:
        machines = sorted({name for k in matrix() if k.kind == "cpu" for name in k.machines})
        raise UserError(
            f"no CPU kernel for {machine!r} can be built here",
            mend=f"use one of {', '.join(machines)}, and see: quantmint kernels list",
        )
    return found


def _show(bundles: Sequence[tuple[str, Bundle]], seconds: float, *, as_json: bool) -> None:
    if as_json:
        rows = [_facts(name, bundle) for name, bundle in bundles]
        click.echo(json.dumps({"kernels": rows, "seconds": round(seconds, 2)}, indent=2))
        return
    for name, bundle in bundles:
        how = "from the store" if bundle.cached else f"compiled in {bundle.kernel_seconds:.0f} s"
        click.echo(f"{name}: {how}, {human_bytes(bundle.tree.size)}, {bundle.folder}")
    click.echo(f"{len(bundles)} bundle{'s' * (len(bundles) != 1)} in {seconds:.1f} s")


def _facts(name: str, bundle: Bundle) -> dict[str, Any]:
    return {
        "kernel": name,
        "cached": bundle.cached,
        "sha256": bundle.tree.sha256,
        "size": bundle.tree.size,
        "compile_seconds": bundle.kernel_seconds,
        "folder": str(bundle.folder),
        "files": {file.path: file.blob.sha256 for file in bundle.tree.files},
        "made_from": bundle.made_from,
    }
