"""`quantmint quantize IN.gguf -o DIR -t V[,V...]`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from quantmint.errors import UserError
from quantmint.files import human_bytes
from quantmint.native.ladder import engine
from quantmint.native.ladder.model import DEFAULT_MEMORY, LadderOptions, Progress, VariantFile
from quantmint.native.ladder.program import locate_program
from quantmint.native.ladder.telling import plain_lines
from quantmint.registry.text import table


@click.command()
@click.argument("source", metavar="IN.gguf", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Output folder.")
@click.option(
    "-t",
    "--types",
    multiple=True,
    required=True,
    metavar="V[,V...]",
    help="Variants, as llama-quantize names them.",
)
@click.option("--imatrix", type=click.Path(path_type=Path), help="Importance matrix.")
@click.option("--threads", type=click.IntRange(1, 4096), help="Default: all processors.")
@click.option(
    "--memory",
    type=click.IntRange(1),
    default=DEFAULT_MEMORY,
    show_default=True,
    help="Bound of the engine's buffers, in bytes.",
)
@click.option(
    "--tensor-type",
    multiple=True,
    metavar="PATTERN=TYPE",
    help="Type of the tensors whose name matches; repeated.",
)
@click.option("--output-tensor-type", metavar="TYPE")
@click.option("--token-embedding-type", metavar="TYPE")
@click.option("--override-kv", multiple=True, metavar="KEY=TYPE:VALUE")
@click.option("--include-weights", multiple=True, metavar="NAME")
@click.option("--exclude-weights", multiple=True, metavar="NAME")
@click.option("--leave-output-tensor", is_flag=True, help="Leave output.weight as it is.")
@click.option("--pure", is_flag=True, help="The same type for all tensors.")
@click.option("--allow-requantize", is_flag=True, help="Take an input that is quantized already.")
@click.option("--keep-split", is_flag=True, help="As many parts as the input has.")
@click.option("--json", "as_json", is_flag=True, help="Print the files' facts for programs.")
@click.option("--program", type=click.Path(path_type=Path), hidden=True)
def quantize(  # noqa: PLR0913  (one parameter for each option of the command line)
    *,
    source: Path,
    out: Path,
    types: tuple[str, ...],
    imatrix: Path | None,
    threads: int | None,
    memory: int,
    as_json: bool,
    program: Path | None,
    tensor_type: tuple[str, ...],
    **tool: Any,  # noqa: ANN401  (the options that LadderOptions names alike)
) -> None:  # fmt: skip
    """Make every variant of a GGUF model in one pass over it.

    The files equal those of llama-quantize byte for byte, header included. Each has its name only
    when it is whole; run again after a kill, the command goes on where it was.
    """
    variants = [name for group in types for name in group.split(",") if name]
    options = LadderOptions(tensor_types=tuple(map(_pair, tensor_type)), **tool)
    with _watcher(quiet=as_json) as watch:
        files = engine.quantize(
            source,
            out,
            variants,
            program=program or locate_program(),
            imatrix=imatrix,
            threads=threads,
            memory=memory,
            options=options,
            progress=watch,
        )
    click.echo(_as_json(files) if as_json else _as_table(files))


def _pair(text: str) -> tuple[str, str]:
    pattern, equals, kind = text.partition("=")
    if not (pattern and equals and kind):
        raise UserError(
            f"--tensor-type wants PATTERN=TYPE, not {text!r}", mend="--tensor-type attn_v=q8_0"
        )
    return pattern, kind


@contextmanager
def _watcher(*, quiet: bool) -> Iterator[Callable[[Progress], None] | None]:
    """Show progress on standard error: a bar for a person, now and then a line for a log."""
    if sys.stderr.isatty():
        with _bar() as watch:
            yield watch
    else:
        yield None if quiet else plain_lines(partial(click.echo, err=True))


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.TextColumn("quantizing"),
        rich_progress.BarColumn(),
        rich_progress.DownloadColumn(),
        rich_progress.TransferSpeedColumn(),
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("quantizing", total=None)
        yield lambda now: bar.update(task, completed=now.done, total=now.total)


def _as_table(files: tuple[VariantFile, ...]) -> str:
    rows = [
        [
            file.variant,
            human_bytes(file.size),
            f"{file.bits_per_weight:.2f}",
            file.fallbacks or "",
            "kept" if file.reused else "made",
            file.sha256[:16],
            file.path,
        ]
        for file in files
    ]
    head = ["variant", "size", "bits", "fallbacks", "", "sha256", "file"]
    return table(head, rows, right=" rrr   ")


def _as_json(files: tuple[VariantFile, ...]) -> str:
    rows = [asdict(file) | {"path": str(file.path)} for file in files]
    return json.dumps({"files": rows}, indent=2)
