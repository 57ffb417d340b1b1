"""The importance matrix: what each column of the weights is multiplied with, on a declared text.

Variants are struck with it where the model file declares one: `imatrix: default`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from quantmint.assets.convert import Converted
from quantmint.assets.mint import Mint
from quantmint.assets.recipe import Imatrix, Recipe
from quantmint.assets.sources.text_file import Text, bring_text
from quantmint.errors import UserError
from quantmint.files import alone
from quantmint.native import imatrix
from quantmint.native.build import Bundle
from quantmint.quiet import heavy
from quantmint.registry import gguf
from quantmint.registry.actions import Action, Outcome, lookup, record
from quantmint.registry.store import Blob

# What a variant's header says of the file that it was struck with: the same on every machine.
FILE_NAME: Final = "imatrix.gguf"
LEAST_CHUNKS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """The matrix: its bytes, the text, and how much of it was read.

    `chunks` of `context` tokens were read; `entries` tensors have data; `partial` names those
    whose experts did not all see a token, and how many did not; `uncovered` names tensors that
    are quantized without data (the embedding and the output always are).
    """

    blob: Blob
    text: Text
    chunks: int
    context: int
    entries: int
    partial: Mapping[str, int]
    uncovered: tuple[str, ...]
    cached: bool


def calibration_text(mint: Mint, recipe: Recipe, base: Path) -> Text:
    """Bring the recipe's calibration text into the store. `base` is the model file's folder.

    Raises:
        UserError, SourceError, IntegrityError: see `bring_text`.
    """
    return bring_text(mint, _declared(recipe).text, base, "calibration")


def make_imatrix(
    mint: Mint, recipe: Recipe, fp16: Converted, bundle: Bundle, text: Text
) -> Importance:
    """Compute the importance matrix of the FP16 file on `text`; a killed run goes on.

    The bytes depend on the kernel's rounding, hence on the bundle, but not on threads, nor on
    where a run was interrupted.

    Raises:
        BuildError: llama-imatrix failed.
        IntegrityError: activations are not finite, or the file is not well-formed.
        UserError: the text is too short.
    """
    declared, layers = _declared(recipe), recipe.assay.gpu_layers
    action = Action(
        name="imatrix",
        inputs={"fp16": fp16.blob.sha256, "text": text.blob.sha256},
        tools={"bundle": bundle.tree.sha256},
        arguments={"chunks": declared.chunks, "context": declared.context, "gpu": layers},
    )
    outcome = lookup(mint.store, action)
    if outcome is None:
        folder = mint.home.work / "imatrix" / action.key[:32]
        waiting = "another process makes the same importance matrix: waiting for it"
        with alone(folder.with_suffix(".lock"), lambda: mint.report(waiting)):
            outcome = lookup(mint.store, action)  # another process may have made it meanwhile
            if outcome is None:
                made = _collect(mint, recipe, fp16, bundle, text, folder)
                outcome = record(mint.store, action, made)
                shutil.rmtree(folder, ignore_errors=True)
    blob = outcome.outputs["imatrix"]
    return Importance(
        blob=blob,
        text=text,
        chunks=int(outcome.facts["chunks"]),
        context=int(outcome.facts["context"]),
        entries=int(outcome.facts["entries"]),
        partial=dict(outcome.facts["partial"]),
        uncovered=uncovered(fp16.header, gguf.read(mint.store.path(blob.sha256))),
        cached=outcome.cached,
    )


def uncovered(fp16: gguf.Gguf, matrix: gguf.Gguf) -> tuple[str, ...]:
    """Return the FP16 file's matrices that the importance matrix has no data for."""
    have = {tensor.name.removesuffix(imatrix.SUMS) for tensor in matrix.tensors}
    matrices = (t.name for t in fp16.tensors if len(t.shape) > 1 and t.name.endswith(".weight"))
    return tuple(name for name in matrices if name not in have)


def _collect(
    mint: Mint, recipe: Recipe, fp16: Converted, bundle: Bundle, text: Text, folder: Path
) -> Outcome:
    declared = _declared(recipe)
    folder.mkdir(parents=True, exist_ok=True)
    mint.store.link(text.blob, folder / text.file_name)
    job = imatrix.Collecting(
        model=mint.store.path(fp16.blob.sha256).absolute(),
        folder=folder,
        text=text.file_name,
        chunks=declared.chunks,
        context=declared.context,
        threads=mint.threads,
        gpu_layers=recipe.assay.gpu_layers,
    )
    log = mint.log(recipe.model, "imatrix")
    tokens = imatrix.count_tokens(bundle, job, log=mint.log(recipe.model, "imatrix-tokens"))
    if tokens < LEAST_CHUNKS * declared.context:
        raise UserError(
            f"the calibration text ({text.origin}) has {tokens} tokens; at least "
            f"{LEAST_CHUNKS * declared.context} are needed at context {declared.context}",
            mend="name a longer text, or a smaller `imatrix: {context: ...}`",
        )
    mint.report(f"{recipe.model}: importance matrix from {text.origin}, {tokens} tokens")
    with heavy(mint.home, mint.report):
        path = imatrix.collect(bundle, job, tokens=tokens, report=mint.report, log=log)
    found = imatrix.inspect(path)
    facts = {
        "chunks": found.chunks,
        "context": found.context,
        "entries": found.entries,
        "partial": found.partial,
    }
    return Outcome(outputs={"imatrix": mint.store.put(path)}, facts=facts)


def _declared(recipe: Recipe) -> Imatrix:
    if recipe.imatrix is None:
        raise UserError(
            f"{recipe.model} declares no importance matrix",
            mend="add `imatrix: default` to its model file",
        )
    return recipe.imatrix
