"""`quantmint release MODEL`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from quantmint.errors import UserError
from quantmint.files import human_bytes
from quantmint.pipelines.commands.build import show_progress
from quantmint.pipelines.spec import find_model
from quantmint.registry.text import table

if TYPE_CHECKING:
    from quantmint.assets.release.publishing import Released


@click.command()
@click.argument("model")
@click.option("--to", default="", help="hub:OWNER/NAME or file:FOLDER instead of the model file's.")
@click.option("--dry-run", is_flag=True, help="Judge, sign and check, but publish nothing.")
@click.option("--private", is_flag=True, help="To a private repository, which is made if need be.")
@click.option("--replace", is_flag=True, help="Let files go that somebody else put there.")
@click.option("--restore", is_flag=True, help="Let main go back to a release of before.")
@click.option("--key", default="", help="The name of the key to sign with.")
@click.option("--yank", type=int, metavar="N", help="Withdraw release N instead.")
@click.option("--reason", default="", help="Why it is withdrawn; users read it.")
@click.option(
    "--variant",
    "variants",
    multiple=True,
    metavar="V",
    help="Of a withdrawn release, only this variant's bytes are bad; more than once.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result for programs.")
def release(
    model: str,
    dry_run: bool,
    yank: int | None,
    reason: str,
    variants: tuple[str, ...],
    as_json: bool,
    **asked: Any,  # noqa: ANN401 - the options that an order has
) -> None:
    """Publish what passed of a model: signed, tested again, in one commit.

    MODEL was built before (`quantmint build MODEL`). A release that says nothing new is not made
    again. The token comes from HF_TOKEN or `hf auth login`, the hub from HF_ENDPOINT.
    """
    if (yank is None) != (not reason) or (variants and yank is None):
        raise UserError(
            "--yank and --reason go together, and --variant with them",
            mend="--yank 3 --reason 'broken chat'",
        )
    progress = show_progress()
    from quantmint.assets.release.publishing import require_keys
    from quantmint.assets.release.withdrawing import Withdrawal
    from quantmint.home import find_home
    from quantmint.pipelines.release import Order, rehearse, release_model, with_terms, yank_release

    order = Order(**asked)
    found = with_terms(find_model(model), order)
    if yank is None and found.spec.release is not None:
        require_keys(find_home(), found.spec.release)
    if yank is not None:
        done = yank_release(found, order, Withdrawal(yank, reason, variants))
        said = {"target": done.target, "yanked": yank, "commit": done.commit,
                "changed": done.changed}  # fmt: skip
        text = f"release {yank} is withdrawn from {done.target}"
    elif dry_run:
        rehearsed = rehearse(found, order)
        said, text = _rehearsed(rehearsed), _told(rehearsed)
    else:
        metadata = release_model(found, order)
        said, text = _plain(metadata), _published(metadata)
    progress.flush()
    click.echo(json.dumps(said) if as_json else text)


def _plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        k: v for k, v in metadata.items() if isinstance(v, str | int | float | bool)
    }
    return {**found, "published": metadata["published"], "withheld": metadata["withheld"]}


def _published(metadata: Mapping[str, Any]) -> str:
    said = _plain(metadata)
    rows = [[row["file"], human_bytes(row["bytes"]), row["sha256"][:16]]
            for row in said["published"]]  # fmt: skip
    name = f"{said['identity']} release {said['release']}"
    if not said["changed"]:
        return f"{name} is published at {said['target']} already; nothing changed"
    parts = [table(["file", "size", "sha256"], rows, right=" r")]
    parts += [f"{row['variant']} is withheld: {row['reason']}" for row in said["withheld"]]
    parts += [said["changes"]]
    parts.append(f"{name} is published: {said['target']} at {said['commit'][:12]}")
    return "\n\n".join(parts)


def _rehearsed(done: Released) -> dict[str, Any]:
    manifest = done.manifest
    return {
        "target": done.target,
        "release": manifest.release,
        "is_new": done.settled.is_new,
        "published": [v.variant for v in manifest.variants],
        "withheld": {row.variant: row.reason for row in manifest.withheld},
        "changes": list(manifest.changes),
        "warnings": list(done.warnings),
        "files": {path: blob.size for path, blob in sorted(done.settled.files.items())},
    }


def _told(done: Released) -> str:
    manifest = done.manifest
    rows = [[path, human_bytes(blob.size)] for path, blob in sorted(done.settled.files.items())]
    state = "would be published" if done.settled.is_new else "exists and would stay as it is"
    parts = [table(["file", "size"], rows, right=" r")]
    parts += [f"{row.variant} would be withheld: {row.reason}" for row in manifest.withheld]
    parts += [f"warning: {warning}" for warning in done.warnings]
    parts += ["\n".join(manifest.changes)]
    parts.append(f"{manifest.identity} release {manifest.release} {state} to {done.target}")
    return "\n\n".join(parts)
