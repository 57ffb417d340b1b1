"""`quantmint models`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from quantmint.errors import UserError
from quantmint.pipelines.spec import load_all
from quantmint.registry.text import table


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the models for programs.")
def models(as_json: bool) -> None:
    """List the models that can be built."""
    models, unreadable = load_all()
    found = [
        {
            "model": model.spec.model,
            "source": model.spec.source.shown,
            "kind": model.spec.source.kind,
            "variants": list(model.spec.variants),
            "file": str(model.file),
        }
        for model in models
    ]
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        click.echo(_table(found))
    if unreadable:
        raise UserError("\n".join(unreadable.values()))


def _table(found: Sequence[dict[str, Any]]) -> str:
    rows = [[row["model"], row["kind"], row["source"], len(row["variants"])] for row in found]
    return table(["model", "kind", "source", "variants"], rows, right="   r")
