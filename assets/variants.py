"""Stage 3: the variants, struck from the FP16 GGUF."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from quantmint.assets.convert import Converted
from quantmint.assets.mint import Mint
from quantmint.assets.recipe import Recipe
from quantmint.errors import IntegrityError
from quantmint.native.build import LADDER, Bundle
from quantmint.native.ftypes import ftype
from quantmint.native.ladder.engine import quantize
from quantmint.native.ladder.model import LadderOptions, VariantFile
from quantmint.native.ladder.telling import plain_lines
from quantmint.registry import gguf
from quantmint.registry.actions import Action, Outcome, lookup, record
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
    """Quantize the FP16 file to each of `variants`; those not made before in one pass over it.

    Raises:
        BuildError: the ladder engine failed.
        UserError: the disk is too small.
    """
    actions = {variant: _action(fp16, bundle, variant) for variant in variants}
    known = {variant: lookup(mint.store, action) for variant, action in actions.items()}
    missing = [variant for variant, outcome in known.items() if outcome is None]
    if missing:
        made = _climb(mint, recipe, fp16, bundle, missing)
        known |= {v: record(mint.store, actions[v], outcome) for v, outcome in made.items()}
    for variant, outcome in known.items():
        assert outcome is not None
        blob = outcome.outputs["gguf"]
        yield Struck(
            variant=variant,
            blob=blob,
            header=gguf.read(mint.store.path(blob.sha256)),
            fallbacks=int(outcome.facts["fallbacks"]),
            cached=outcome.cached,
        )


def _action(fp16: Converted, bundle: Bundle, variant: str) -> Action:
    return Action(
        name="quantize",
        inputs={"fp16": fp16.blob.sha256},
        tools={"llama.cpp": bundle.tools_digest},
        arguments={"ftype": variant},
    )


def expected_size(fp16: Converted, variant: str) -> int:
    """Return about how many bytes a variant takes, from its nominal bits per weight."""
    return int(fp16.header.weights * ftype(variant).bits / 8) + fp16.header.data_offset


def _climb(
    mint: Mint, recipe: Recipe, fp16: Converted, bundle: Bundle, variants: Sequence[str]
) -> dict[str, Outcome]:
    """Make the variants in one pass; after a kill the folder stays, and the next run resumes."""
    mint.store.require_room(sum(int(expected_size(fp16, name) * 1.1) for name in variants))
    folder = mint.home.work / "ladder" / fp16.blob.sha256[:32]
    folder.mkdir(parents=True, exist_ok=True)
    mint.report(f"{recipe.model}: quantizing to {', '.join(variants)}")
    files = quantize(
        mint.store.path(fp16.blob.sha256),
        folder,
        variants,
        program=bundle.tool(LADDER),
        threads=mint.threads,
        options=LadderOptions(source_digest=fp16.blob.sha256),
        progress=plain_lines(mint.report),
    )
    outcomes = {file.variant: _take(mint, file) for file in files}
    shutil.rmtree(folder, ignore_errors=True)
    return outcomes


def _take(mint: Mint, file: VariantFile) -> Outcome:
    """Move a finished file into the store, through the strict gate."""
    gguf.read(file.path)
    with mint.store.stage() as stage:
        staged = file.path.rename(stage / file.path.name)
        blob = mint.store.adopt(staged, size=file.size)
    if blob.sha256 != file.sha256:
        raise IntegrityError(
            f"{file.variant} lies on disk with other bytes than were written",
            mend="run the same command again; if it stays, suspect the disk or the memory",
        )
    return Outcome(outputs={"gguf": blob}, facts={"fallbacks": file.fallbacks})
