"""`quantmint pull REF`."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from quantmint.home import find_home
from quantmint.registry.commands.pulling import (
    Wished,
    complete_here,
    request_of,
    size_of,
    wishes_options,
)

if TYPE_CHECKING:
    from quantmint.registry.pull.engine import Pulled, Resolved


@click.command()
@click.argument("ref", shell_complete=complete_here)
@wishes_options
@click.option("--explain", is_flag=True, help="Print all candidates, and why each was (not) taken.")
@click.option("--dry-run", is_flag=True, help="Choose, and fetch nothing.")
@click.option("--to", type=click.Path(path_type=Path, file_okay=False), help="Link it there, too.")
@click.option("--lm-studio", is_flag=True, help="Link it into LM Studio's folder.")
@click.option("--ollama", is_flag=True, help="Link it into Ollama's blobs, for `ollama create`.")
@click.option("--hub-cache", is_flag=True, help="Link it into the Hub's cache (hf, llama.cpp -hf).")
@click.option("--mirror", "mirrors", multiple=True, metavar="URL",
              help="Ask there, too; unless given, those in QUANTMINT_MIRRORS.")  # fmt: skip
@click.option("--rate", metavar="SIZE", help="Take at most so much per second: 500kB, 20MB.")
@click.option("--json", "as_json", is_flag=True, help="Print the result for programs.")
def pull(  # noqa: PLR0913  (one parameter for each option of the command line)
    *,
    ref: str,
    explain: bool,
    dry_run: bool,
    to: Path | None,
    lm_studio: bool,
    ollama: bool,
    hub_cache: bool,
    mirrors: tuple[str, ...],
    rate: str | None,
    as_json: bool,
    **wished: Unpack[Wished],
) -> None:
    """Fetch the variant of a model that fits this machine, verified.

    REF is a model of a registry (phi-3.5-mini-instruct, ...:Q4_K_M, ...@3), a repository of the
    Hub (owner/name, hub:owner/name:Q4_K_M@main), a folder (file:DIR) or sha256:DIGEST.

    The path goes to standard output. Warnings go to standard error, and, where a person watches,
    the progress and ready commands.
    """
    from quantmint.registry.bar import bar_for_people, shown
    from quantmint.registry.pull.choose import RefusedError
    from quantmint.registry.pull.engine import Puller
    from quantmint.registry.pull.told import explained, from_where, saved
    from quantmint.registry.transfer import Limits

    bar = bar_for_people()
    puller = Puller(find_home(), progress=bar)
    request = replace(
        request_of(ref, wished), to=to, lm_studio=lm_studio, ollama=ollama, hub_cache=hub_cache,
        mirrors=mirrors, limits=Limits(rate=size_of(rate)),
    )  # fmt: skip
    try:
        resolved = puller.resolve(request)
    except RefusedError as error:
        if explain:
            click.echo(explained(error.machine, error.candidates), err=True)
        raise
    for warning in resolved.warnings:
        click.echo(f"warning: {warning}", err=True)
    if explain:
        click.echo(explained(resolved.machine, resolved.choice.candidates), err=True)
    if dry_run:
        _tell_dry(resolved, as_json=as_json)
        return
    watched = sys.stderr.isatty()
    if watched:
        click.echo(from_where(resolved), err=True)
    with shown(bar):
        pulled = puller.pull(request, resolved)
    if watched:
        click.echo(saved(pulled), err=True)
    if as_json:
        click.echo(json.dumps({**_facts(resolved), **_came(pulled)}, indent=2))
    else:
        click.echo(str(pulled.path))
    if watched:
        _tell_people(pulled)


def _tell_people(pulled: Pulled) -> None:
    from quantmint.registry.pull.told import lines

    for path in pulled.also:
        click.echo(f"also linked: {path}", err=True)
    lines(lambda line: click.echo(line, err=True), pulled)


def _came(pulled: Pulled) -> dict[str, object]:
    from quantmint.registry.pull.told import commands

    got = pulled.got
    return {
        "path": str(pulled.path),
        "also": [str(path) for path in pulled.also],
        "fetched": got.fetched if got else 0,
        "reused": got.reused if got else 0,
        "adopted": list(got.adopted) if got else [],
        "ways": [one.way for one in got.took] if got else [],
        "commands": dict(commands(pulled)),
    }


def _tell_dry(resolved: Resolved, *, as_json: bool) -> None:
    from quantmint.registry.pull.told import from_where

    if as_json:
        click.echo(json.dumps(_facts(resolved), indent=2))
    else:
        click.echo(f"would pull {from_where(resolved)}")


def _facts(resolved: Resolved) -> dict[str, object]:
    from quantmint.registry.pull.told import facts_of

    believed, offer = resolved.believed, resolved.offer
    verified = believed.verified if believed else None
    kept = resolved.kept
    place = resolved.place.name if resolved.place else kept.place if kept else None
    return {
        "model": resolved.model,
        "variant": offer.variant,
        "files": [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in offer.files],
        "place": place,
        "commit": believed.listing.commit if believed else kept.commit if kept else None,
        "release": verified.manifest.release if verified else kept.number if kept else None,
        "signer": verified.signer if verified else kept.signer if kept else None,
        "warnings": list(resolved.warnings),
        "candidates": facts_of(resolved.choice),
    }
