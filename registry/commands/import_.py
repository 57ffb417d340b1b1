"""`quantmint import FILE`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from quantmint.home import find_home
from quantmint.registry.bar import bar_for_people, shown
from quantmint.registry.pull.bring import bring


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--strict", is_flag=True, help="Refuse what no trusted key has signed.")
@click.option("--release", type=click.IntRange(1), help="Take this older release on purpose.")
@click.option("--json", "as_json", is_flag=True, help="Print the result for programs.")
def import_(*, file: Path, strict: bool, release: int | None, as_json: bool) -> None:
    """Take a model out of a file that `quantmint export` wrote; no network is used."""
    with shown(bar_for_people()):
        came = bring(find_home(), file, strict=strict, release=release)
    for warning in came.warnings:
        click.echo(f"warning: {warning}", err=True)
    kept = came.kept
    if as_json:
        click.echo(
            json.dumps(
                {"ref": kept.title, "model": kept.model, "release": kept.number,
                 "signer": kept.signer, "variants": list(kept.variants),
                 "paths": [str(path) for path in came.paths]},
                indent=2,
            )
        )  # fmt: skip
        return
    for path in came.paths:
        click.echo(str(path))
