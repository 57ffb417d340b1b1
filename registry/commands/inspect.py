"""`quantmint inspect FILE`."""

from __future__ import annotations

import json
import math
from pathlib import Path

import click

from quantmint.errors import UserError
from quantmint.files import human_bytes
from quantmint.registry import gguf
from quantmint.registry.gguf import Texts
from quantmint.registry.text import table


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print facts for programs.")
@click.option("--tensors", is_flag=True, help="List every tensor.")
def inspect(file: Path, as_json: bool, tensors: bool) -> None:
    """Check a GGUF file and print its facts.

    The reader is strict and pure Python: no native parser sees the file. Exit code 5 if it is
    not well-formed.
    """
    if not file.is_file():
        raise UserError(f"{file} is no file", mend="give the path of a GGUF file")
    header = gguf.read(file)
    if as_json:
        click.echo(json.dumps(_facts(header), indent=2))
        return
    click.echo(f"{file.name}: GGUF version {header.version}, {human_bytes(header.size)}")
    for key, value in header.values.items():
        click.echo(f"  {key} = {_short(value)}")
    rows = [[n, c, human_bytes(s)] for n, (c, s) in header.type_table().items()]
    click.echo(table(["type", "tensors", "size"], rows, right=" rr"))
    click.echo(f"{header.weights:,} weights, {header.bits_per_weight:.3f} bits per weight")
    if tensors:
        listed = [
            [t.name, t.type.name, "x".join(map(str, t.shape)), t.size] for t in header.tensors
        ]
        click.echo(table(["tensor", "type", "shape", "bytes"], listed, right="   r"))


def _facts(header: gguf.Gguf) -> dict[str, object]:
    return {
        "version": header.version,
        "size": header.size,
        "architecture": header.architecture,
        "weights": header.weights,
        "bits_per_weight": header.bits_per_weight,
        "values": {key: _json_value(value) for key, value in header.values.items()},
        "tensors": [
            {"name": t.name, "type": t.type.name, "shape": t.shape, "offset": t.offset,
             "size": t.size}
            for t in header.tensors
        ],
    }  # fmt: skip


def _json_value(value: object) -> object:
    """Return a value that JSON can hold: bytes of a token that are no UTF-8 are escaped."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (Texts, memoryview)):
        return [_json_value(item) for item in value]
    return value


def _short(value: object) -> str:
    if isinstance(value, (Texts, memoryview)):
        return f"{len(value)} values: {str(_json_value(value[:4]))[:70]}"
    shown = _json_value(value)
    text = repr(shown) if isinstance(shown, str) else str(shown)
    return text if len(text) <= 100 else text[:97] + "..."
