"""`quantmint outdated`."""

from __future__ import annotations

import json
import sys

import click

from quantmint.errors import UserError
from quantmint.files import human_bytes
from quantmint.home import find_home
from quantmint.registry.commands.extras import mint_module
from quantmint.registry.commands.pulling import complete_here
from quantmint.registry.pull import local
from quantmint.registry.pull.kept import all_kept
from quantmint.registry.pull.outdated import Standing, newest_of, standing
from quantmint.registry.pull.reference import parse_reference
from quantmint.registry.store import Store
from quantmint.registry.text import table
from quantmint.registry.trust_root import TrustRoot


@click.command()
@click.argument("ref", required=False, shell_complete=complete_here)
@click.option("--built", is_flag=True, help="Models built here, against their upstreams.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 if anything should be pulled again.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings for programs.")
def outdated(*, ref: str | None, built: bool, exit_code: bool, as_json: bool) -> None:
    """Say what newer releases changed, and whether it matters.

    REF is a model that was pulled; without one, all are asked for. With --built: what changed
    upstream, or in the model file, of the models that were built here.
    """
    if built:
        side = mint_module("quantmint.pipelines.commands.outdated", "outdated --built")
        is_late = side.show_built(ref, as_json=as_json)
        sys.exit(1 if exit_code and is_late else 0)
    home = find_home()
    store, root = Store(home.store).open(), TrustRoot(home.keys)
    everything = all_kept(store)
    kept = local.matching(store, parse_reference(ref)) if ref else everything
    newest = sorted(newest_of(kept), key=lambda each: (each.model, each.place))
    if ref is not None and not newest:
        raise UserError(
            f"{ref[:96]!r} was not pulled to this machine",
            mend="quantmint list; quantmint outdated --built for what was built here",
        )
    rows = [row for each in newest for row in standing(store, each, root)]
    if as_json:
        click.echo(json.dumps([_facts(row) for row in rows], indent=2))
    elif rows:
        lines = [
            [f"{local.called(row.kept, everything)}:{row.variant}", row.kept.label,
             row.newest or "-", row.change,
             "-" if row.fetch is None else human_bytes(row.fetch), row.means]
            for row in rows
        ]  # fmt: skip
        head = ["model", "here", "newest", "changed", "to fetch", ""]
        click.echo(table(head, lines, right="    r"))
    else:
        click.echo("nothing was pulled yet", err=True)
    if exit_code and any(row.matters for row in rows):
        sys.exit(1)


def _facts(row: Standing) -> dict[str, object]:
    return {
        "model": row.kept.model, "variant": row.variant, "place": row.kept.place,
        "here": row.kept.label, "newest": row.newest or None, "changed": row.change,
        "matters": row.matters, "fetch": row.fetch, "means": row.means,
    }  # fmt: skip
