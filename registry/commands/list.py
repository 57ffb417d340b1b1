"""`quantmint list`."""

from __future__ import annotations

import json

import click

from quantmint.files import human_bytes
from quantmint.home import find_home
from quantmint.registry.pull.kept import Kept, all_kept
from quantmint.registry.pull.local import called
from quantmint.registry.pull.placing import placed_files
from quantmint.registry.store import Store
from quantmint.registry.text import table
from quantmint.registry.trust_policy import Policy
from quantmint.registry.trust_root import TrustRoot


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the list for programs.")
def list_(*, as_json: bool) -> None:
    """List the models that are on this machine."""
    home = find_home()
    store = Store(home.store)
    policy = TrustRoot(home.keys).policy()
    rows = []
    everything = all_kept(store) if home.store.is_dir() else []
    for kept in everything:
        for variant in kept.variants:
            placed = placed_files(store, home, kept, variant)
            name = f"{called(kept, everything)}:{variant}"
            rows.append((name, kept, variant, str(placed[0]) if placed else None))
    if as_json:
        click.echo(json.dumps([_facts(*row, policy) for row in rows], indent=2))
    elif rows:
        lines = [
            [name, kept.label, human_bytes(_size(kept, variant)),
             _trust(kept, variant, policy), kept.place]
            for name, kept, variant, _ in rows
        ]  # fmt: skip
        click.echo(table(["model", "release", "size", "trust", "from"], lines, right="  r"))
    else:
        click.echo("nothing yet; `quantmint pull REF` fetches a model", err=True)


def _facts(
    name: str, kept: Kept, variant: str, path: str | None, policy: Policy
) -> dict[str, object]:
    return {
        "ref": name, "model": kept.model, "variant": variant,
        "release": kept.number, "commit": kept.commit, "place": kept.place,
        "signer": kept.signer, "pulled": kept.pulled or None,
        "size": _size(kept, variant), "sha256": [blob.sha256 for blob in kept.files(variant)],
        "path": path, "withdrawn": _is_withdrawn(kept, variant, policy),
    }  # fmt: skip


def _trust(kept: Kept, variant: str, policy: Policy) -> str:
    if _is_withdrawn(kept, variant, policy):
        return "WITHDRAWN"
    return "signed" if kept.signer else "unsigned"


def _is_withdrawn(kept: Kept, variant: str, policy: Policy) -> bool:
    gone = policy.withdrawn_of(kept.identity or "")
    return any(blob.sha256 in gone for blob in kept.files(variant))


def _size(kept: Kept, variant: str) -> int:
    return sum(blob.size for blob in kept.files(variant))
