"""`quantmint verify REF`: what was pulled, hashed again against its signed manifest."""

from __future__ import annotations

import json

import click

from quantmint.errors import IntegrityError, UserError
from quantmint.files import human_bytes
from quantmint.home import find_home
from quantmint.registry.commands.hashing import progress
from quantmint.registry.pull import local
from quantmint.registry.pull.checking import Checked, Checker
from quantmint.registry.pull.kept import all_kept
from quantmint.registry.pull.reference import parse_reference
from quantmint.registry.store import Store
from quantmint.registry.trust_root import TrustRoot


def is_kept(text: str) -> bool:
    """Return whether a text names something that is kept here."""
    home = find_home()
    try:
        reference = parse_reference(text)
    except UserError:
        return False
    return home.store.is_dir() and bool(local.matching(Store(home.store), reference))


def verify_models(ref: str | None, *, strict: bool, as_json: bool) -> None:
    """Check one model, or all that are kept, and print what was found.

    Raises:
        UserError: it is not here.
        IntegrityError: something is wrong with it.
    """
    home = find_home()
    store = Store(home.store).open()
    everything = all_kept(store)
    rows = everything if ref is None else local.matching(store, parse_reference(ref))
    if ref is not None and not rows:
        raise UserError(
            f"{ref[:96]!r} is neither a folder nor a model that is here", mend="quantmint list"
        )
    plain = Checker(home, store, TrustRoot(home.keys), strict)
    with progress(plain.size(rows)) as on_bytes:
        checker = Checker(home, store, plain.root, strict, on_bytes)
        found = [checker.check(kept, everything) for kept in rows]
    bits = 0
    for one in found:
        bits |= one.bits
    if as_json:
        models = [_facts(one) for one in found]
        click.echo(json.dumps({"bits": bits, "models": models}, indent=2))
    else:
        for one in found:
            _tell(one)
        if not found:
            click.echo("nothing was pulled yet", err=True)
    _refuse(found, bits)


def _refuse(found: list[Checked], bits: int) -> None:
    bad = [one for one in found if one.faults]
    if not bad:
        return
    kept = bad[0].kept
    again = f"pull {kept.place}" if kept.is_pulled else f"build {kept.model}"
    mend = f"rm what is corrupt, then: quantmint {again}"
    if bits == 2:
        mend = f"quantmint keys list; quantmint outdated; or quantmint rm {kept.title}"
    raise IntegrityError(f"{len(bad)} of {len(found)} releases are not sound (bits {bits})",
                         mend=mend)  # fmt: skip


def _tell(one: Checked) -> None:
    kept = one.kept
    for warning in one.warnings:
        click.echo(f"warning: {warning}", err=True)
    for fault in one.faults:
        click.echo(f"{fault.verdict}  {fault.path}  ({fault.detail})")
    by = f"signed with key {kept.signer[:16]}" if kept.signer else "nobody vouches for it"
    bad = len(one.faults)
    state = f"{bad} fault{'s' if bad > 1 else ''}" if bad else "sound"
    names = ", ".join(kept.variants)
    click.echo(
        f"{kept.title} release {kept.label} ({names}): {one.files}"
        f" file{'s' if one.files != 1 else ''},"
        f" {human_bytes(one.size)}, {state}; {by}"
    )


def _facts(one: Checked) -> dict[str, object]:
    kept = one.kept
    return {
        "model": kept.model, "release": kept.number, "commit": kept.commit, "place": kept.place,
        "signer": kept.signer, "variants": list(kept.variants), "files": one.files,
        "size": one.size, "bits": one.bits, "warnings": list(one.warnings),
        "faults": [
            {"verdict": f.verdict, "path": str(f.path), "detail": f.detail} for f in one.faults
        ],
    }  # fmt: skip
