"""`quantmint verify`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click

from quantmint.errors import IntegrityError, UserError
from quantmint.home import find_home
from quantmint.registry.commands.hashing import progress
from quantmint.registry.commands.pulling import complete_here
from quantmint.registry.refs import parse_ref, read_bytes, ref_files
from quantmint.registry.store import Store
from quantmint.registry.verifying import BITS, Fault, verify_objects


@click.command()
@click.argument("what", required=False, metavar="[REF|FOLDER]", shell_complete=complete_here)
@click.option("--all", "all_models", is_flag=True, help="Check every model that was pulled.")
@click.option("--strict", is_flag=True, help="Refuse what is unsigned (a FOLDER: or expired).")
@click.option("--deep", is_flag=True, help="FOLDER: hash each tensor as well.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings for programs.")
def verify(what: str | None, all_models: bool, strict: bool, deep: bool, as_json: bool) -> None:
    """Hash again every object of the store, a pulled model (REF), or a release's FOLDER.

    Three verdicts on a pulled model: `corrupt` (the bytes are not what the signed manifest says),
    `untrusted` (nobody who is trusted vouches for it any more), `unreadable` (gone, or the disk
    does not give it). On the store: `corrupt`, `unknown` (no object has such a name),
    `unreadable` (also where a release needs an object that is not there). Exit code 5 if there
    is any; `bits` sums up 1, 2 and 4 for the three. A folder is checked against its signature and
    the keys that this home trusts.
    """
    from quantmint.registry.commands.verify_model import is_kept, verify_models

    if all_models or what is not None:
        if all_models and what is not None:
            raise UserError("--all checks everything that was pulled", mend="leave REF out")
        folder = Path(what) if what is not None else None
        if folder is not None and folder.is_dir() and not is_kept(str(what)):
            from quantmint.registry.commands.verify_folder import verify_release_folder

            verify_release_folder(folder, strict=strict, deep=deep, as_json=as_json)
            return
        if deep:
            raise UserError("--deep is about a FOLDER", mend="quantmint verify FOLDER --deep")
        verify_models(what, strict=strict, as_json=as_json)
        return
    if strict or deep:
        raise UserError(
            "--strict and --deep are about a REF or a FOLDER", mend="quantmint verify REF"
        )
    _verify_store(as_json=as_json)


def _verify_store(*, as_json: bool) -> None:
    """Hash everything, and print what was found.

    Raises:
        IntegrityError: something is wrong.
    """
    store = Store(find_home().store).open()
    paths = list(store.blobs())
    with progress(sum(_size(path) for path in paths)) as on_bytes:
        faults = list(verify_objects(paths, on_bytes))
    faults += list(_references(store))
    bits = sum(bit for verdict, bit in BITS.items() if any(f.verdict == verdict for f in faults))
    if as_json:
        rows = [{"verdict": f.verdict, "path": str(f.path), "detail": f.detail} for f in faults]
        click.echo(json.dumps({"objects": len(paths), "bits": bits, "faults": rows}))
    else:
        for fault in faults:
            click.echo(f"{fault.verdict}  {fault.path}  ({fault.detail})")
        click.echo(f"{len(paths)} objects, {len(faults)} faults")
    if faults:
        raise IntegrityError(
            f"{len(faults)} of {len(paths)} objects are not sound (bits {bits})",
            mend="remove the listed files; `quantmint build MODEL` makes them again",
        )


def _references(store: Store) -> Iterator[Fault]:
    """Yield what releases need and is not there, and references that can't be read."""
    for path in ref_files(store):
        try:
            ref = parse_ref(path, read_bytes(path))
        except IntegrityError as error:
            yield Fault("corrupt", path, error.what)
            continue
        except OSError as error:
            yield Fault("unreadable", path, str(error.strerror))
            continue
        for name, blob in ref.objects.items():
            if not store.has(blob):
                detail = f"{name} of the release {ref.model}/{ref.release} is not there"
                yield Fault("unreadable", store.path(blob.sha256), detail)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0
