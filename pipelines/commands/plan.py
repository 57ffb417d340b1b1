"""`quantmint plan MODEL`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from quantmint.files import human_bytes
from quantmint.pipelines.spec import find_model
from quantmint.registry.text import table

if TYPE_CHECKING:
    from quantmint.pipelines.planning import Step


@click.command()
@click.argument("model")
@click.option("-v", "--variant", "variants", multiple=True, help="Only this variant.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan for programs.")
def plan(model: str, variants: tuple[str, ...], as_json: bool) -> None:
    """Print what building a model would do, and the disk it needs.

    Nothing is fetched or built, and the Hub is not asked (`quantmint outdated --built` asks it).
    Sizes of what was not built yet are estimates.
    """
    from quantmint.pipelines.planning import make_plan

    found = make_plan(find_model(model), variants)
    if as_json:
        click.echo(json.dumps({**asdict(found), "needed": found.needed}, indent=2))
        return
    rows = [
        [
            step.asset,
            _word(step),
            "?" if step.size is None else "~ " + human_bytes(step.size),
            step.reason or "up to date",
        ]
        for step in found.steps
    ]
    click.echo(table(["asset", "", "size", "why"], rows, right="  r"))
    needed = "not known before the source is seen" if found.needed is None else _bytes(found.needed)
    click.echo(f"\nneeds {needed} of disk; {human_bytes(found.free)} are free")
    if found.needed is not None and found.needed > found.free:
        click.echo("that does not fit: free some space, or set QUANTMINT_HOME to a larger disk")


def _word(step: Step) -> str:
    if step.reason is None:
        return "keep"
    return "build" if step.certain else "perhaps"


def _bytes(count: int) -> str:
    return "nothing more" if count == 0 else f"about {human_bytes(count)}"
