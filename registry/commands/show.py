"""`quantmint show REF`."""

from __future__ import annotations

import json

import click

from quantmint.errors import UserError
from quantmint.files import human_bytes
from quantmint.home import Home, find_home
from quantmint.registry import gguf
from quantmint.registry.commands.pulling import complete_here
from quantmint.registry.manifest.release import Manifest
from quantmint.registry.pull import local
from quantmint.registry.pull.kept import Kept, all_kept
from quantmint.registry.pull.placing import own_spot, placed_files, put_files
from quantmint.registry.pull.reference import parse_reference
from quantmint.registry.store import Store
from quantmint.registry.text import table
from quantmint.registry.trust_root import TrustRoot


@click.command()
@click.argument("ref", shell_complete=complete_here)
@click.option("--modelfile", is_flag=True, help="Print a Modelfile for `ollama create`.")
@click.option("--json", "as_json", is_flag=True, help="Print everything for programs.")
def show(*, ref: str, modelfile: bool, as_json: bool) -> None:
    """Print what is known of a model that is on this machine."""
    home = find_home()
    store = Store(home.store).open()
    reference = parse_reference(ref)
    found = local.find(store, reference, TrustRoot(home.keys), only_tell=not modelfile)
    kept, variant = found.kept, reference.variant
    if modelfile:
        click.echo(_modelfile(home, store, kept, variant or found.offers[0].variant), nl=False)
        return
    manifest = kept.manifest(store)
    if as_json:
        facts = _facts(home, store, kept, manifest)
        click.echo(json.dumps({**facts, "warnings": list(found.warnings)}, indent=2))
        return
    for warning in found.warnings:
        click.echo(f"warning: {warning}", err=True)
    _print(home, store, kept, manifest)


def _print(home: Home, store: Store, kept: Kept, manifest: Manifest | None) -> None:
    name = local.called(kept, all_kept(store, kept.model))
    click.echo(f"{name}  release {kept.label}  from {kept.place}")
    click.echo(f"signed with key {kept.signer}" if kept.signer else "not signed by a trusted key")
    if manifest is not None:
        source = manifest.source
        click.echo(f"made from {source.name}" + (f" at {source.commit}" if source.commit else ""))
        click.echo(f"license {manifest.license or 'not stated'}, expires {manifest.expires}")
        for line in manifest.changes:
            click.echo(f"  {line}")
    rows = []
    for variant in kept.variants:
        size = sum(blob.size for blob in kept.files(variant))
        row = manifest.variant(variant) if manifest else None
        kld = f"{row.divergence[0].kld_mean:.4f}" if row and row.divergence else "-"
        top = f"{row.divergence[0].top1:.1%}" if row and row.divergence else "-"
        placed = placed_files(store, home, kept, variant)
        rows.append([variant, human_bytes(size), kld, top, str(placed[0]) if placed else "-"])
    click.echo(table(["variant", "size", "KLD", "same top token", "path"], rows, right=" rrr"))


def _facts(home: Home, store: Store, kept: Kept, manifest: Manifest | None) -> dict[str, object]:
    return {
        "model": kept.model, "place": kept.place, "commit": kept.commit, "release": kept.number,
        "signer": kept.signer, "pulled": kept.pulled or None,
        "variants": {
            variant: {
                "files": [
                    {"path": path, "sha256": blob.sha256, "size": blob.size}
                    for path, blob in zip(kept.variants[variant], kept.files(variant), strict=True)
                ],
                "placed": [str(path) for path in placed_files(store, home, kept, variant)],
            }
            for variant in kept.variants
        },
        "manifest": manifest.model_dump(mode="json", exclude_none=True) if manifest else None,
    }  # fmt: skip


def _modelfile(home: Home, store: Store, kept: Kept, variant: str) -> str:
    from quantmint.registry.pull.ollama import modelfile

    path = put_files(store, kept, variant, own_spot(home, kept))
    if len(kept.variants[variant]) > 1:
        raise UserError(
            f"{kept.model}:{variant} is a model in parts, which Ollama can't read",
            mend="pull a variant that is one file",
        )
    try:
        return modelfile(gguf.read(path), path)
    except ValueError:
        raise UserError(
            f"the path {path} can't stand in a Modelfile", mend="quantmint pull ... --to DIR"
        ) from None
