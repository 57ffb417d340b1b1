"""`quantmint kernels assay`."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict

import click

from quantmint.assets.kernel_assay import KernelAssay, TypeRow, assay_kernel
from quantmint.assets.mint import open_mint
from quantmint.errors import IntegrityError
from quantmint.native.build import build_kernels
from quantmint.native.evaluation.results import SpeedAt
from quantmint.native.host import cpu_flags, machine_name, system_name
from quantmint.native.kernels import Kernel, choose, reference_kernel, runnable
from quantmint.pipelines.commands.build import show_progress
from quantmint.registry.text import table


@click.command("assay")
@click.argument("names", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every CPU kernel that this machine can run.")
@click.option("--markdown", is_flag=True, help="Print tables as docs/kernels.md has them.")
@click.option("--json", "as_json", is_flag=True, help="Print everything for programs.")
def assay(names: tuple[str, ...], every: bool, markdown: bool, as_json: bool) -> None:
    """Compare kernels with plain scalar code on a small model: logits, determinism, speed.

    Of this machine's best kernel by default; what is missing is built first.
    """
    progress = show_progress()
    mint = open_mint(logging.getLogger("quantmint").info)
    kernels = _wanted(names, every)
    first, *bundles = build_kernels(
        mint.home, mint.store, [reference_kernel(), *kernels], mint.report
    )
    found = [
        assay_kernel(mint, bundle, first, gpu_layers=bundle.kernel.force.gpu_layers)
        for bundle in bundles
    ]
    progress.flush()
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found], indent=2))
    else:
        click.echo(_markdown(found) if markdown else _plain(found))
    wrong = [each for each in found if not each.verdict.passed]
    if wrong:
        raise IntegrityError(
            "\n".join(each.verdict.reason for each in wrong),
            mend="do not release for these kernels; compare with another llama.cpp or compiler",
        )


def _wanted(names: Sequence[str], every: bool) -> list[Kernel]:
    chosen = list(choose(list(names))) if names else []
    if every:
        here = runnable(machine_name(), cpu_flags(), system_name())
        chosen += [kernel for kernel in here if kernel not in chosen]
    return chosen or list(choose("host"))


HEAD = ["kernel", "worst NMSE", "same top", "same bits: runs", "threads", "prompt t/s", "gen. t/s"]


def _rows(found: Sequence[KernelAssay]) -> list[list[str]]:
    return [
        [
            each.kernel,
            f"{each.worst:.1e}" if each.kernel != each.reference else "reference",
            _least_top1(each.rows),
            _yes(all(row.same_runs for row in each.rows)),
            _yes(all(row.same_threads for row in each.rows)),
            _speed(each.speeds.prompt),
            _speed(each.speeds.generation),
        ]
        for each in found
    ]


def _plain(found: Sequence[KernelAssay]) -> str:
    return table(HEAD, _rows(found), right=" rrrrrr")


def _markdown(found: Sequence[KernelAssay]) -> str:
    kinds = [row.kind for row in found[0].rows]
    tables: list[tuple[str, Callable[[TypeRow], str]]] = [
        (f"Normalized mean squared error of the logits against {found[0].reference}", _error),
        ("Tokens per second, prompt of 128", lambda row: _median(row.speeds.prompt)),
        ("Tokens per second, 32 generated", lambda row: _median(row.speeds.generation)),
    ]
    parts = [f"{found[0].cpu}, {found[0].threads} threads.\n", _lines(HEAD, _rows(found))]
    for title, cell in tables:
        rows = [[each.kernel, *(cell(row) for row in each.rows)] for each in found]
        parts += [f"\n{title}:\n", _lines(["kernel", *kinds], rows)]
    return "\n".join(parts)


def _median(speeds: Sequence[SpeedAt]) -> str:
    return f"{speeds[-1].median:.0f}" if speeds else "-"


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *(["--:"] * (len(head) - 1))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *rows])


def _error(row: TypeRow) -> str:
    return "-" if row.agreement is None else f"{row.agreement.nmse:.0e}"


def _least_top1(rows: Sequence[TypeRow]) -> str:
    shares = [row.agreement.top1 for row in rows if row.agreement is not None]
    return f"{min(shares):.1%}" if shares else "-"


def _speed(speeds: Sequence[SpeedAt]) -> str:
    if not speeds:
        return "-"
    at = speeds[-1]
    return f"{at.median:.0f} ({at.low:.0f} to {at.high:.0f})"


def _yes(same: bool) -> str:
    return "yes" if same else "no"
