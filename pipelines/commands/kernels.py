"""`quantmint kernels list | build`."""

from __future__ import annotations

import json

import click

from quantmint.assets.mint import open_mint
from quantmint.files import human_bytes
from quantmint.native.build import build_kernel
from quantmint.native.kernels import choose, cpu_flags, host_kernel, machine_name, matrix
from quantmint.pipelines.commands.build import show_progress
from quantmint.registry.text import table


@click.group()
def kernels() -> None:
    """List or build the kernels of the matrix."""


@kernels.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the matrix for programs.")
def list_kernels(as_json: bool) -> None:
    """List every kernel: can this machine run it, and if not, what it lacks."""
    rows = [(kernel, kernel.lacking(machine_name(), cpu_flags())) for kernel in matrix()]
    if as_json:
        found = [
            {"kernel": k.name, "machine": k.machine, "runnable": not lack, "lacks": lack}
            for k, lack in rows
        ]
        click.echo(json.dumps(found, indent=2))
        return
    best = host_kernel().name
    shown = [
        [k.name, k.machine, "no" if lack else "yes", ", ".join(lack) or _mark(k.name == best)]
        for k, lack in rows
    ]
    click.echo(table(["kernel", "machine", "runs here", "lacks"], shown))


@kernels.command("build")
@click.argument("names", nargs=-1)
def build_kernels(names: tuple[str, ...]) -> None:
    """Build the bundles of the named kernels; of this machine's best one by default."""
    import logging

    show_progress()
    mint = open_mint(logging.getLogger("quantmint").info)
    for kernel in choose(list(names) or "host"):
        bundle = build_kernel(mint.home, mint.store, kernel, mint.report)
        how = "from the store" if bundle.cached else f"built in {bundle.seconds:.0f} s"
        click.echo(f"{kernel.name}: {how}, {human_bytes(bundle.tree.size)}, {bundle.folder}")


def _mark(is_best: bool) -> str:
    return "- (this machine's best)" if is_best else "-"
