"""`quantmint kernels list | build`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict

import click

from quantmint.native.kernels import host_kernel, matrix
from quantmint.native.probes.answers import Answer, answer
from quantmint.native.probes.look import look
from quantmint.pipelines.commands.kernel_assays import assay
from quantmint.pipelines.commands.kernel_builds import build
from quantmint.registry.text import wrapped


@click.group()
def kernels() -> None:
    """List or build the kernels of the matrix."""


@kernels.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the matrix for programs.")
def list_kernels(as_json: bool) -> None:
    """List every kernel: can this machine build and run it, and if not, what mends it."""
    machine = look(matrix())
    answers = [answer(kernel, machine) for kernel in matrix()]
    best = host_kernel().name
    if as_json:
        found = {
            "machine": {**asdict(machine), "flags": sorted(machine.flags)},
            "kernels": [_facts(each, best) for each in answers],
        }
        click.echo(json.dumps(found, indent=2))
        return
    columns = shutil.get_terminal_size((100, 24)).columns
    rows = [
        [each.kernel.name, each.kernel.kind, _yes(each.builds), _yes(each.runs),
         each.summary or "this machine's best CPU kernel" * (each.kernel.name == best)]
        for each in answers
    ]  # fmt: skip
    click.echo(wrapped(["kernel", "kind", "builds", "runs", "missing"], rows, columns=columns))
    mends = [[_some(names), mend] for mend, names in _mends(answers).items()]
    if mends:
        click.echo("\nWhat mends it:")
        click.echo(wrapped(["kernels", "mend"], mends, columns=columns))


def _facts(each: Answer, best: str) -> dict[str, object]:
    """Return all that is known of a kernel on this machine."""
    return {
        **each.kernel.model_dump(),
        "library": each.kernel.library,
        "best": each.kernel.name == best,
        "builds": each.builds,
        "runs": each.runs,
        "missing_to_build": [asdict(missing) for missing in each.to_build],
        "missing_to_run": [asdict(missing) for missing in each.to_run],
        "summary": each.summary,
    }


def _mends(answers: Iterable[Answer]) -> dict[str, list[str]]:
    """Return what would mend something, and the names of the kernels that it is for.

    Of what running needs only the root is listed: without a GPU nobody installs a driver.
    """
    found: dict[str, list[str]] = {}
    for each in answers:
        for missing in (*each.to_build, *each.to_run[:1]):
            names = found.setdefault(missing.mend, []) if missing.mend else []
            if each.kernel.name not in names:
                names.append(each.kernel.name)
    return found


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:2])
    return shown if len(names) <= 2 else f"{shown} and {len(names) - 2} more"


def _yes(can: bool) -> str:
    return "yes" if can else "no"


kernels.add_command(build)
kernels.add_command(assay)
