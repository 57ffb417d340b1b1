"""`quantmint gc`."""

from __future__ import annotations

import json

import click

from quantmint.files import human_bytes
from quantmint.home import find_home
from quantmint.registry.ages import parse_age
from quantmint.registry.gc import Item, Policy, Report, collect, objects_by_reason
from quantmint.registry.store import Store
from quantmint.registry.text import table


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option(
    "--older-than", "unnamed", default="1d", show_default=True, metavar="AGE",
    help="Keep what is younger than this though nothing needs it.",
)  # fmt: skip
@click.option(
    "--actions-older-than", "actions", default="30d", show_default=True, metavar="AGE",
    help="Forget work that was not asked for as long as this, with what it made.",
)  # fmt: skip
@click.option("--keep-actions", is_flag=True, help="Forget no work, however old.")
@click.option("--json", "as_json", is_flag=True, help="Print each object, for programs.")
def gc(dry_run: bool, unnamed: str, actions: str, keep_actions: bool, as_json: bool) -> None:
    """Free the disk of what nothing needs.

    Kept are the objects of references, of work that was of use lately, of files in the models
    folder, and whatever a running process works with. What is removed by mistake in AGE is only
    made again. AGE is 0, 90s, 30min, 12h or 7d.
    """
    policy = Policy(
        unnamed_age=parse_age(unnamed),
        action_age=None if keep_actions else parse_age(actions),
        dry_run=dry_run,
    )
    home = find_home()
    report = collect(Store(home.store).open(), policy, model_folders=[home.models])
    if as_json:
        click.echo(json.dumps(_facts(report, dry_run=dry_run)))
        return
    _print(report, "would remove" if dry_run else "removed", "would be" if dry_run else "")


def _print(report: Report, removed: str, freed: str) -> None:
    counts = (
        f"{len(report.removed)} objects, {len(report.folders)} folders, "
        f"{len(report.records)} action records, {len(report.temporaries)} temporary files, "
        f"{len(report.partials)} unfinished transfers"
    )
    click.echo(f"{removed} {counts}: {human_bytes(report.freed)} {freed}".rstrip() + " freed")
    rows = [[text, n, human_bytes(size)] for text, n, size in objects_by_reason(report)]
    if rows:
        click.echo(table(["kept because", "objects", "size"], rows, right=" rr"))


def _facts(report: Report, *, dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "freed": report.freed,
        "removed": [_row(item) for item in report.removed],
        "kept": [_row(item) for item in report.kept],
        "folders": report.folders,
        "records": report.records,
        "temporaries": [str(path) for path in report.temporaries],
        "unfinished": [str(path) for path in report.partials],
    }


def _row(item: Item) -> dict[str, object]:
    row: dict[str, object] = {"sha256": item.sha256, "size": item.size}
    return row if item.why is None else {**row, "kind": item.why.kind, "why": item.why.text}
