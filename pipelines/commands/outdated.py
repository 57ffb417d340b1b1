"""The mint's side of `quantmint outdated --built`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from quantmint.home import find_home
from quantmint.pipelines.spec import find_model, load_all
from quantmint.registry.text import table

if TYPE_CHECKING:
    from quantmint.pipelines.outdated import Standing


def show_built(named: str | None, *, as_json: bool) -> bool:
    """Print what is out of date of what was built here; return whether anything is.

    Raises:
        UserError: there is no such model.
    """
    models = [find_model(named)] if named else load_all()[0]
    from quantmint.pipelines.outdated import built_standing

    found = built_standing(find_home(), models)
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found], indent=2))
    elif found:
        click.echo("\n\n".join(_told(each, named or each.model) for each in found))
    else:
        click.echo("nothing was built yet", err=True)
    return any(each.late for each in found)


def _told(standing: Standing, named: str) -> str:
    commit = f" (upstream commit {standing.commit[:12]})" if standing.commit else ""
    blind = f"\n  not looked at: {standing.blind}" if standing.blind else ""
    if not standing.late:
        return f"{standing.model}{commit}: up to date{blind}"
    rows = [[late.asset, "" if late.certain else "perhaps", late.why] for late in standing.late]
    mend = f"mend: quantmint build {named}"
    return f"{standing.model}{commit}:{blind}\n{table(['asset', '', 'why'], rows)}\n  {mend}"
