"""`quantmint build MODEL`."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from quantmint.errors import IntegrityError
from quantmint.files import human_bytes
from quantmint.pipelines.spec import Model, find_model
from quantmint.registry.text import table

if TYPE_CHECKING:
    from quantmint.pipelines.build import Built, VariantRow


@click.command()
@click.argument("model")
@click.option(
    "-v", "--variant", "variants", multiple=True, help="Only this variant; may stand repeatedly."
)
@click.option("--refresh", is_flag=True, help="Look at the Hub again.")
@click.option("--force", is_flag=True, help="Do all work again, whatever was made before.")
@click.option(
    "--accept-measurements",
    "accept",
    is_flag=True,
    help="Compare with what was measured last from now on, better or worse.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result for programs.")
def build(
    *,
    model: str,
    variants: tuple[str, ...],
    refresh: bool,
    force: bool,
    accept: bool,
    as_json: bool,
) -> None:
    """Build and test a model's variants.

    MODEL is a name that `quantmint models` lists, or the path of a model file. The same assets
    are built as from the web UI; what is up to date is not built again.
    """
    started = time.monotonic()
    found = find_model(model)
    progress = show_progress()
    from quantmint.pipelines.build import Wish, build_model

    wish = Wish(variants=variants, refresh=refresh, force=force, accept=accept)
    built = build_model(found, wish)
    seconds = time.monotonic() - started
    if as_json:
        rows = [
            {"variant": r.variant, "failed": r.failed, **_plain(r.metadata)} for r in built.rows
        ]
        click.echo(json.dumps({"made": built.made, "variants": rows, "seconds": seconds}))
    else:
        _print(found, built, seconds)
    progress.flush()
    _refuse_failures(found, built)


def show_progress() -> logging.Handler:
    """Show the stages' progress on standard error, one line at a time, with the time of day."""
    logger = logging.getLogger("quantmint")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return handler


def _print(model: Model, built: Built, seconds: float) -> None:
    spec = model.spec
    if not built.rows:
        return  # refused before any variant was struck; the error says why
    if built.made:
        click.echo(f"\n{spec.model}: {len(built.made)} assets built in {seconds:.0f} s")
    else:
        click.echo(f"{spec.model}: nothing to build, everything is up to date ({seconds:.1f} s)")
    rows = [
        [
            row.variant,
            human_bytes(row.metadata["size"]),
            f"{row.metadata['bits_per_weight']:.2f}",
            _number(row.metadata.get("perplexity"), 4),
            _number(row.metadata.get("kld"), 5),
            _number(row.metadata.get("top1"), 3),
            _number(row.metadata.get("prompt_512_tokens_per_second"), 0),
            _number(row.metadata.get("generation_32_tokens_per_second"), 0),
            "withheld" if row.failed else "passed",
        ]
        for row in built.rows
    ]
    head = ["variant", "size", "bits/weight", "perplexity", "KLD", "top-1",
            "prompt t/s", "gen. t/s", "gates"]  # fmt: skip
    click.echo("\n" + table(head, rows, right=" rrrrrrr"))
    for row in built.rows:
        for reason in row.failed:
            click.echo(f"\n{row.variant} is withheld: {reason}")
    best = next((row for row in built.rows if not row.failed and _says(row)), None)
    if best is not None:
        click.echo(f"\n{best.variant} was asked: {spec.assay.prompt}")
        click.echo("  " + _says(best).strip().replace("\n", "\n  "))
        click.echo(f"\nfiles: {_folder(best)}")


def _refuse_failures(model: Model, built: Built) -> None:
    withheld = [row.variant for row in built.rows if row.failed]
    if withheld:
        raise IntegrityError(
            f"withheld: {', '.join(withheld)}; the reasons stand above",
            mend=f"mend the source or the gates of {model.spec.model}, then build again",
        )
    if built.refused:
        raise IntegrityError(
            f"a blocking check failed: {built.refused}",
            mend="mend the source, then build again",
        )


def _plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in metadata.items() if isinstance(v, str | int | float | bool)}


def _number(value: Any, digits: int) -> str:  # noqa: ANN401
    return "-" if value is None else f"{value:.{digits}f}"


def _says(row: VariantRow) -> str:
    return str(row.metadata.get("sample_text", ""))


def _folder(row: VariantRow) -> str:
    return str(row.metadata["visible_file"]).rpartition("/")[0]
