"""`quantmint rm REF`."""

from __future__ import annotations

import contextlib
import json
import sys

import click

from quantmint.errors import QuantmintError, UserError
from quantmint.files import human_bytes
from quantmint.home import Home, find_home
from quantmint.registry.commands.pulling import complete_here
from quantmint.registry.gc import free
from quantmint.registry.pull import local
from quantmint.registry.pull.kept import Kept, all_kept
from quantmint.registry.pull.placing import placed_files
from quantmint.registry.pull.reference import parse_reference
from quantmint.registry.refs import put_ref, remove_ref
from quantmint.registry.store import Store


@click.command()
@click.argument("ref", shell_complete=complete_here)
@click.option("--json", "as_json", is_flag=True, help="Print what was removed, for programs.")
def rm(*, ref: str, as_json: bool) -> None:
    """Remove a model that was pulled, or one variant of it, and free the disk.

    What something else needs stays: another model, a running process, a file in the models folder.
    """
    home = find_home()
    store = Store(home.store).open()
    reference = parse_reference(ref)
    rows = local.matching(store, reference)
    pulled = [kept for kept in rows if kept.is_pulled]
    if not pulled:
        raise UserError(
            f"{reference} was released from this machine; it is not removed"
            if rows
            else f"{reference} is not on this machine",
            mend="quantmint list",
        )
    everything = all_kept(store)
    removed, digests = [], set[str]()
    for kept in pulled:
        gone = [reference.variant] if reference.variant else list(kept.variants)
        if reference.kind == "digest":
            gone = [v for v in gone if any(b.sha256 == reference.name for b in kept.files(v))]
        digests |= _remove(home, store, kept, gone)
        for variant in gone:
            removed.append({"model": kept.model, "variant": variant, "release": kept.number,
                            "place": kept.place})  # fmt: skip
            if not as_json:
                name = local.called(kept, everything)
                click.echo(f"removed {name}:{variant} (release {kept.label}, {kept.place})")
    freed = _free(home, store, digests)
    if as_json:
        click.echo(json.dumps(removed, indent=2))
    elif sys.stderr.isatty():
        click.echo(f"{human_bytes(freed)} freed", err=True)


def _free(home: Home, store: Store, digests: set[str]) -> int:
    """Free what no reference names any more; return the bytes. The model is removed already."""
    try:
        return free(store, digests, model_folders=[home.models]).freed
    except QuantmintError as error:
        click.echo(f"warning: the disk is not freed yet: {error.what}", err=True)
        return 0


def _remove(home: Home, store: Store, kept: Kept, gone: list[str]) -> set[str]:
    """Remove the links first: killed in between, the same command finds the rest.

    Return the digests of what the reference does not name any more.
    """
    for variant in gone:
        for path in placed_files(store, home, kept, variant):
            path.unlink(missing_ok=True)
            for folder in path.parents:
                if folder == home.models:
                    break
                with contextlib.suppress(OSError):
                    folder.rmdir()
    left = {name: paths for name, paths in kept.variants.items() if name not in gone}
    assert kept.ref is not None
    if not left:
        remove_ref(store, kept.model, kept.name, expected=kept.ref.revision)
        return {blob.sha256 for blob in kept.objects.values()}
    dropped = {path for name in gone for path in kept.variants[name]}
    dropped |= {f"tensors/{name}.json" for name in gone}
    dropped -= {path for paths in left.values() for path in paths}
    objects = {path: blob for path, blob in kept.objects.items() if path not in dropped}
    body = {**kept.body, "variants": {name: list(paths) for name, paths in left.items()}}
    put_ref(store, kept.model, kept.name, objects, body=body, expected=kept.ref.revision)
    return {kept.objects[path].sha256 for path in dropped if path in kept.objects}
