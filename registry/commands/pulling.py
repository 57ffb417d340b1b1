"""What the commands that pull have in common: options, sizes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import click

from quantmint.errors import QuantmintError, UserError
from quantmint.home import find_home

if TYPE_CHECKING:
    from quantmint.registry.pull.engine import Request

F = TypeVar("F", bound=Callable[..., Any])
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kMGT]?)(i?)B?", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_OPTIONS = (
    click.option("--variant", "-v", default="auto", show_default=True, help="Which variant."),
    click.option(
        "--context", "-c", default=4096, show_default=True, metavar="TOKENS",
        type=click.IntRange(128, 1 << 22), help="The context that must fit into memory.",
    ),
    click.option(
        "--min-speed", type=click.FloatRange(0, 1e6), metavar="TOKENS/S",
        help="Take nothing slower (4, unless nothing reaches that).",
    ),
    click.option("--memory", metavar="SIZE", help="Choose for so much memory: 8GB, 6GiB."),
    click.option("--strict", is_flag=True, help="Refuse what no trusted key has signed."),
    click.option("--registry", metavar="PLACE", help="hub:OWNER or file:DIR, for model names."),
)  # fmt: skip


_RUN_OPTIONS = (
    click.option(
        "--gpu-layers", type=click.IntRange(0), metavar="N",
        help="So many layers to the GPU: 0 for none. As many as fit, unless given.",
    ),
    click.option(
        "--kernel", metavar="NAME",
        help="This kernel of the mint; unless given, the best that is built.",
    ),
)  # fmt: skip


def wishes_options(command: F) -> F:
    """Give a command the options that say what is wanted."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def run_options(command: F) -> F:
    """Give a command the options that say on what a model runs."""
    for option in reversed(_RUN_OPTIONS):
        command = option(command)
    return command


def complete_here(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Return what a shell may offer for a reference: models that are here, their places, folders.

    Nothing where that fails.
    """
    from quantmint.registry.pull.kept import all_kept
    from quantmint.registry.pull.local import called
    from quantmint.registry.store import Store

    try:
        rows = all_kept(Store(find_home().store))
        found = {f"{called(kept, rows)}:{variant}" for kept in rows for variant in kept.variants}
        if incomplete.startswith(("hub:", "file:")):
            found |= {
                f"{kept.place}:{variant}"
                for kept in rows
                for variant in kept.variants
                if kept.place.startswith(("hub:", "file:"))
            }
            found |= _folders(incomplete)
    except (QuantmintError, OSError):
        return []
    return sorted(name for name in found if name.startswith(incomplete))


def _folders(incomplete: str) -> set[str]:
    """Return the folders whose paths begin so, each with a slash."""
    if not incomplete.startswith("file:"):
        return set()
    above = incomplete.removeprefix("file:").rpartition("/")
    folder = Path(above[0] + above[1] or ".").expanduser()
    return {
        f"file:{above[0]}{above[1]}{path.name}/"
        for path in (folder.iterdir() if folder.is_dir() else ())
        if path.is_dir() and (above[2].startswith(".") or not path.name.startswith("."))
    }


def size_of(text: str | None) -> int | None:
    """Return the bytes that a text means: `8GB` (decimal), `6GiB`, `500kB`, `1000000`.

    Raises:
        UserError: it is no size.
    """
    if text is None:
        return None
    match = _SIZE.fullmatch(text.strip())
    if match is None or not float(match[1]):
        raise UserError(f"{text[:40]!r} is no size", mend="write 8GB, 6GiB, 500kB")
    base = 1024 if match[3] else 1000
    return int(float(match[1]) * base ** _POWERS[match[2].upper()])


class Wished(TypedDict):
    """What `wishes_options` gives a command."""

    variant: str
    context: int
    min_speed: float | None
    memory: str | None
    strict: bool
    registry: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A model that can be run: its first file and all, what it is called, with which context."""

    path: Path
    files: tuple[Path, ...]
    name: str
    context: int
    threads: int


def request_of(ref: str, wished: Wished) -> Request:
    """Return the request that the options ask for.

    Raises:
        UserError: the reference, the variant or the size is none.
    """
    from quantmint.registry.pull.choose import AUTO, Wishes
    from quantmint.registry.pull.engine import Request
    from quantmint.registry.pull.reference import check_variant, parse_reference

    variant = wished["variant"]
    return Request(
        reference=parse_reference(ref),
        wishes=Wishes(
            variant=AUTO if variant == AUTO else check_variant(variant),
            context=wished["context"],
            min_speed=wished["min_speed"],
            memory=size_of(wished["memory"]),
        ),
        registry=wished["registry"],
        strict=wished["strict"],
    )


def ready(ref: str, wished: Wished) -> Ready:
    """Return a model as it is here, with the warnings told; it is pulled if it is not.

    Raises:
        UserError, RegistryError, IntegrityError: see `Puller.pull`.
    """
    from quantmint.registry import gguf
    from quantmint.registry.bar import bar_for_people, shown
    from quantmint.registry.pull.choose import NoVariantError
    from quantmint.registry.pull.engine import Puller
    from quantmint.registry.pull.header import number
    from quantmint.registry.pull.local import NotHereError
    from quantmint.registry.pull.told import from_where

    request = request_of(ref, wished)
    bar = bar_for_people()
    puller = Puller(find_home(), progress=bar)
    try:
        resolved = puller.resolve_here(request)
    except (NotHereError, NoVariantError):
        resolved = puller.resolve(request)
    for warning in resolved.warnings:
        click.echo(f"warning: {warning}", err=True)
    if resolved.place is not None:
        click.echo(from_where(resolved), err=True)
    with shown(bar):
        pulled = puller.pull(request, resolved)
    variant = resolved.offer.variant
    trained = number(gguf.read(pulled.path), "context_length") or wished["context"]
    names = (path.rpartition("/")[2] for path in pulled.kept.variants[variant])
    return Ready(
        path=pulled.path,
        files=tuple(pulled.path.with_name(name) for name in names),
        name=f"{pulled.kept.model}:{variant}",
        context=min(wished["context"], trained),
        threads=resolved.machine.cores,
    )
