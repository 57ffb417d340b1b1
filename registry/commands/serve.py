"""`quantmint serve REF`."""

from __future__ import annotations

from typing import Unpack

import click

from quantmint.registry.commands.pulling import Wished, complete_here, ready, wishes_options
from quantmint.registry.runtime import Session, module_for, start


@click.command()
@click.argument("ref", shell_complete=complete_here)
@wishes_options
@click.option("--port", type=click.IntRange(1024, 65535), default=8080, show_default=True)
def serve(*, ref: str, port: int, **wished: Unpack[Wished]) -> None:
    """Serve a model's OpenAI-compatible API on loopback.

    It is pulled first if it is not here. The first line that is printed is the API's address.
    """
    module_for("serve")
    found = ready(ref, wished)
    start(
        Session(
            task="serve", model=str(found.path), name=found.name, context=found.context,
            threads=found.threads, gpu_layers=found.gpu_layers, port=port,
        )
    )  # fmt: skip
