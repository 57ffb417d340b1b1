"""Stage 3: the variants, struck from the FP16 GGUF."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from quantmint.assets.convert import Converted
from quantmint.assets.mint import Mint
from quantmint.assets.recipe import Recipe
from quantmint.native import tools
from quantmint.native.build import Bundle
from quantmint.native.ftypes import ftype
from quantmint.registry import gguf
from quantmint.registry.actions import Action, Outcome, perform
from quantmint.registry.store import Blob


@dataclass(frozen=True, slots=True)
class Struck:
    """One variant: its bytes, its header's facts, and how many tensors fell back in type."""

    variant: str
    blob: Blob
    header: gguf.Gguf
    fallbacks: int
    cached: bool


def strike_variants(
    mint: Mint, recipe: Recipe, fp16: Converted, bundle: Bundle, variants: Sequence[str]
) -> Iterator[Struck]:
    """Quantize the FP16 file to each of `variants`, one after another, as each is finished.

    Raises:
        BuildError: llama-quantize failed.
        UserError: the disk is too small.
    """
    for variant in variants:
        action = Action(
            name="quantize",
            inputs={"fp16": fp16.blob.sha256},
            tools={"llama.cpp": bundle.tools_digest},
            arguments={"ftype": variant, "requantize": fp16.header.is_quantized},
        )
        make = partial(_strike, mint, recipe, fp16, bundle, variant)
        outcome = perform(mint.store, action, make)
        blob = outcome.outputs["gguf"]
        yield Struck(
            variant=variant,
            blob=blob,
            header=gguf.read(mint.store.path(blob.sha256)),
            fallbacks=int(outcome.facts["fallbacks"]),
            cached=outcome.cached,
        )


def expected_size(fp16: Converted, variant: str) -> int:
    """Return about how many bytes a variant takes, from its nominal bits per weight."""
    return int(fp16.header.weights * ftype(variant).bits / 8) + fp16.header.data_offset


def _strike(mint: Mint, recipe: Recipe, fp16: Converted, bundle: Bundle, variant: str) -> Outcome:
    mint.store.require_room(int(expected_size(fp16, variant) * 1.1))
    with mint.store.stage() as stage:
        job = tools.Quantizing(
            source=mint.store.path(fp16.blob.sha256),
            target=stage / f"{variant}.gguf",
            ftype=variant,
            threads=mint.threads,
        )
        log = mint.log(recipe.model, f"quantize-{variant}")
        fallbacks = tools.quantize(bundle, job, report=mint.report, log=log)
        gguf.read(job.target)
        blob = mint.store.adopt(job.target)
    return Outcome(outputs={"gguf": blob}, facts={"fallbacks": fallbacks})
