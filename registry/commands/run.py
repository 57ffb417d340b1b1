"""`quantmint run REF`."""

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
@click.argument("prompt", required=False)
@wishes_options
@run_options
@click.option(
    "--max-tokens",
    type=click.IntRange(1),
    metavar="N",
    help="End each answer after so many tokens; as the context allows, unless given.",
)
@click.option(
    "--temperature", "heat", type=click.FloatRange(0, 2), default=0.7, show_default=True,
    metavar="T", help="How freely words are chosen; 0 takes the likeliest each time.",
)  # fmt: skip
def run(
    *,
    ref: str,
    prompt: str | None,
    max_tokens: int | None,
    heat: float,
    gpu_layers: int | None,
    kernel: str | None,
    **wished: Unpack[Wished],
) -> None:
    """Chat with a model on this machine's best kernel.

    It is pulled first if it is not here. Without PROMPT each line that is typed is answered, until
    Ctrl-D, or, where nobody types, the whole of standard input. Prompts go through the template of
    the model's file. Where the context is full, the oldest turns are forgotten.

    The kernel is a GPU's where one is built and finds its GPU, with as many layers there as its
    free memory holds; else the best for the CPU.
    """
    module_for("chat", kernel)
    found = ready(ref, wished)
    start(
        Session(
            task="chat", model=str(found.path), files=tuple(map(str, found.files)),
            name=found.name, context=found.context, threads=found.threads,
            gpu_layers=gpu_layers, kernel_name=kernel, prompt=prompt, max_tokens=max_tokens,
            heat=heat,
        )
    )  # fmt: skip
