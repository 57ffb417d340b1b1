"""`quantmint serve REF`."""

from __future__ import annotations

from typing import Unpack

import click

from quantmint.registry.commands.pulling import (
    Wished,
    complete_here,
    ready,
    run_options,
    wishes_options,
)
from quantmint.registry.runtime import Session, module_for, start


@click.command()
@click.argument("ref", shell_complete=complete_here)
@wishes_options
@run_options
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True,
    metavar="N", help="0 takes any that is free.",
)  # fmt: skip
def serve(
    *,
    ref: str,
    port: int,
    gpu_layers: int | None,
    kernel: str | None,
    **wished: Unpack[Wished],
) -> None:
    """Serve a model's OpenAI-compatible API on loopback.

    It is pulled first if it is not here. The first line that is printed is the API's address.
    What runs where is decided as for `quantmint run`.
    """
    from quantmint.registry.serving import bind

    module_for("serve", kernel)
    bind(port).close()  # a port that is taken is said before anything is fetched
    found = ready(ref, wished)
    start(
        Session(
            task="serve", model=str(found.path), files=tuple(map(str, found.files)),
            name=found.name, context=found.context, threads=found.threads,
            gpu_layers=gpu_layers, kernel_name=kernel, port=port,
        )
    )  # fmt: skip
