"""`quantmint export REF`."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import click

from quantmint.files import human_bytes
from quantmint.home import find_home
from quantmint.registry.bar import bar_for_people, shown
from quantmint.registry.commands.pulling import complete_here
from quantmint.registry.pull import local
from quantmint.registry.pull.archive import export as write_archive
from quantmint.registry.pull.reference import parse_reference
from quantmint.registry.store import Store
from quantmint.registry.trust_root import TrustRoot


@click.command()
@click.argument("ref", shell_complete=complete_here)
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="The file.")
@click.option("--json", "as_json", is_flag=True, help="Print the result for programs.")
def export(*, ref: str, output: Path | None, as_json: bool) -> None:
    """Write a model into one file, for machines without a network.

    The file is a plain tar with the signed manifest in it; `quantmint import` verifies it there.
    """
    home = find_home()
    store = Store(home.store).open()
    reference = parse_reference(ref)
    found = local.find(store, reference, TrustRoot(home.keys))
    kept = found.kept
    if reference.variant is not None:
        others = {
            path
            for name, paths in kept.variants.items()
            for path in (*paths, f"tensors/{name}.json")
            if name != reference.variant
        }
        objects = {path: blob for path, blob in kept.objects.items() if path not in others}
        variants = {reference.variant: kept.variants[reference.variant]}
        kept = replace(kept, objects=objects, variants=variants)
    for warning in found.warnings:
        click.echo(f"warning: {warning}", err=True)
    name = f"{kept.model}-{reference.variant or 'all'}-{kept.label}.tar"
    target = output or Path(name)
    with shown(bar_for_people()):
        size = write_archive(store, kept, target)
    if as_json:
        facts = {"path": str(target), "size": size, "model": kept.model, "release": kept.number,
                 "variants": list(kept.variants)}  # fmt: skip
        click.echo(json.dumps(facts, indent=2))
        return
    if sys.stderr.isatty():
        click.echo(f"{human_bytes(size)}: quantmint import {target.name}", err=True)
    click.echo(str(target))
