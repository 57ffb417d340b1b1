"""`quantmint verify`."""

from __future__ import annotations

import json

import click

from quantmint.errors import IntegrityError
from quantmint.home import find_home
from quantmint.registry.store import Store


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings for programs.")
def verify(as_json: bool) -> None:
    """Hash every object of the store again.

    Three verdicts: `corrupt` (the bytes are not what the name says), `unknown` (no object),
    `unreadable`. Exit code 5 if there is any.
    """
    store = Store(find_home().store).open()
    faults = list(store.verify())
    count = sum(1 for _ in store.blobs())
    if as_json:
        rows = [{"verdict": fault.verdict, "path": str(fault.path)} for fault in faults]
        click.echo(json.dumps({"objects": count, "faults": rows}))
    else:
        for fault in faults:
            click.echo(f"{fault.verdict}  {fault.path}")
        click.echo(f"{count} objects, {len(faults)} faults")
    if faults:
        raise IntegrityError(
            f"{len(faults)} of {count} objects are not sound",
            mend="remove the listed files; `quantmint build MODEL` makes them again",
        )
