"""`quantmint models`."""

from __future__ import annotations

import json

import click

from quantmint.pipelines.spec import load_all
from quantmint.registry.text import table


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the models for programs.")
def models(as_json: bool) -> None:
    """List the models that can be built."""
    found = [
        {
            "model": model.spec.model,
            "source": model.spec.source.shown,
            "kind": model.spec.source.kind,
            "variants": list(model.spec.variants),
            "file": str(model.file),
        }
        for model in load_all()
    ]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    rows = [[row["model"], row["kind"], row["source"], len(row["variants"])] for row in found]
    click.echo(table(["model", "kind", "source", "variants"], rows, right="   r"))
