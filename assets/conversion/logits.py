"""The check that the FP16 file predicts what the checkpoint predicts, on the same tokens."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from quantmint.assets.conversion.source_side import OFFLINE, source_folder
from quantmint.assets.convert import Converted, converter_identity
from quantmint.assets.mint import Mint
from quantmint.assets.recipe import Recipe
from quantmint.assets.source import SourceWeights
from quantmint.assets.sources.text_file import embedded_text
from quantmint.assets.verdict import NotMadeError, Verdict, judge
from quantmint.errors import BuildError, IntegrityError
from quantmint.files import human_bytes, sha256_of
from quantmint.native.build import Bundle
from quantmint.native.conversion.ask import ask
from quantmint.process import Command, Limits, run
from quantmint.registry.actions import Action

CHECK: Final = "logits"
TOKENS: Final = 96
# transformers holds every weight as float32, and a shard more while it loads.
BYTES_PER_WEIGHT: Final = 5
SHARE_OF_MEMORY: Final = 0.7
CONTEXT: Final = 256
WRONG: Final = (
    "the conversion is wrong, or the checkpoint's config.json is: compare rope, norm and attention "
    "settings with the original's, and update the pinned llama.cpp if its converter is at fault"
)


@dataclass(frozen=True, slots=True)
class Regime:
    """One set of RoPE factors: where transformers' positions begin, and llama.cpp's context."""

    name: str
    start: int
    context: int


def check_logits(
    mint: Mint, recipe: Recipe, source: SourceWeights, made: Converted, bundle: Bundle
) -> Verdict:
    """Compare logits with transformers' on the first tokens of the embedded assay text.

    A LongRoPE model is compared with its short and with its long factors. The distance is the
    squared difference over all logits, divided by their squared deviation from each token's mean
    (a constant added to all logits of a token changes no prediction).
    """
    action = Action(
        name=CHECK,
        inputs={
            "source": source.blob.sha256,
            "fp16": made.blob.sha256,
            "text": sha256_of(embedded_text("assay")),
        },
        tools={"bundle": bundle.tree.sha256, **converter_identity()},
        arguments={"tokens": TOKENS, "bounds": list(recipe.gates.source_bounds)},
    )
    return judge(mint, action, lambda: _compare(mint, recipe, source, made, bundle))


def regimes(made: Converted) -> tuple[Regime, ...]:
    """Return the RoPE regimes of a file: a LongRoPE model has two, by the context's length."""
    key = f"{made.header.architecture}.rope.scaling.original_context_length"
    original = made.header.values.get(key)
    long = any(tensor.name == "rope_factors_long.weight" for tensor in made.header.tensors)
    if not long or not isinstance(original, int):
        return (Regime("plain", 0, CONTEXT),)
    return (Regime("short", 0, CONTEXT), Regime("long", original, original + CONTEXT))


def memory_budget() -> int:
    """Return how many bytes transformers may take now: a share of what is available."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        rows = dict(line.split(":", 1) for line in lines)
        free = int(rows["MemAvailable"].split()[0]) << 10
    except (OSError, KeyError, ValueError):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return int(free * SHARE_OF_MEMORY)


def _compare(
    mint: Mint, recipe: Recipe, source: SourceWeights, made: Converted, bundle: Bundle
) -> tuple[str, Mapping[str, Any]]:
    if not source.is_checkpoint:
        raise NotMadeError("the source is a GGUF file: there is no checkpoint to compare with")
    needed, budget = source.weights * BYTES_PER_WEIGHT, memory_budget()
    if needed > budget:
        raise NotMadeError(
            f"transformers would take about {human_bytes(needed)} of memory, and "
            f"{human_bytes(budget)} may be used here (70 % of what is free); the `weights` check "
            "compares every tensor instead"
        )
    listed = regimes(made)
    with mint.store.stage() as stage:
        ids = _tokens(mint, recipe, made, bundle)
        _transformers(mint, recipe, source, stage, listed, ids, needed)
        _llama_cpp(mint, recipe, made, bundle, stage, listed, ids)
        found = {regime.name: _distance(stage, regime) for regime in listed}
    return _judge(found, len(ids), recipe.gates.source_bounds)


def _tokens(mint: Mint, recipe: Recipe, made: Converted, bundle: Bundle) -> list[int]:
    text = embedded_text("assay").read_text(encoding="utf-8")[: TOKENS * 16]
    path, log = mint.store.path(made.blob.sha256), mint.log(recipe.model, "logits-tokens")
    ids: list[int] = ask(bundle, path, ["tokenize"], log, texts=[text])["tokenize"][0][:TOKENS]
    return ids


def _transformers(
    mint: Mint, recipe: Recipe, source: SourceWeights, stage: Path, listed: Sequence[Regime],
    ids: Sequence[int], needed: int,
) -> None:  # fmt: skip
    request = {
        "folder": str(source_folder(mint, recipe, source)), "tokens": ids, "threads": mint.threads,
        "targets": [[regime.start, str(stage / f"theirs-{regime.name}.npy")] for regime in listed],
    }  # fmt: skip
    command = Command(
        argv=[sys.executable, "-m", "quantmint.assets.conversion.source_model"],
        env=OFFLINE,
        limits=Limits(wall_seconds=4 * 3600, address_space=2 * needed + (16 << 30)),
        stdin=json.dumps(request).encode(),
        log=mint.log(recipe.model, "transformers"),
    )
    try:
        run(command)
    except BuildError as error:
        raise NotMadeError(f"transformers can't run this checkpoint: {error.what}") from None


def _llama_cpp(
    mint: Mint, recipe: Recipe, made: Converted, bundle: Bundle, stage: Path,
    listed: Sequence[Regime], ids: Sequence[int],
) -> None:  # fmt: skip
    targets = [[regime.context, stage / f"ours-{regime.name}.npy"] for regime in listed]
    path, log = mint.store.path(made.blob.sha256), mint.log(recipe.model, CHECK)
    ask(bundle, path, ["logits"], log, tokens=ids, threads=mint.threads, targets=targets)


def _distance(stage: Path, regime: Regime) -> tuple[float, float]:
    """Return NMSE and the share of tokens whose likeliest successor is the same."""
    import numpy as np

    theirs, ours = (
        np.load(stage / f"{side}-{regime.name}.npy", allow_pickle=False).astype(np.float64)
        for side in ("theirs", "ours")
    )
    if theirs.shape[0] != ours.shape[0] or theirs.shape[1] < ours.shape[1]:
        raise IntegrityError(
            f"logits of shape {ours.shape}, the source's {theirs.shape}", mend=WRONG
        )
    theirs = theirs[:, : ours.shape[1]]  # a checkpoint may pad its vocabulary
    theirs, ours = (side - side.mean(axis=1, keepdims=True) for side in (theirs, ours))
    if not (np.isfinite(theirs).all() and np.isfinite(ours).all()):
        return float("inf"), 0.0
    nmse = float(((ours - theirs) ** 2).sum() / (theirs**2).sum())
    return nmse, float((ours.argmax(axis=1) == theirs.argmax(axis=1)).mean())


def _judge(
    found: Mapping[str, tuple[float, float]], tokens: int, bounds: tuple[float, float]
) -> tuple[str, Mapping[str, Any]]:
    most, least = bounds
    said = "; ".join(
        f"{name} RoPE: NMSE {nmse:.2e}, same top token {top1:.3f}"
        for name, (nmse, top1) in found.items()
    )
    said += f" on {tokens} tokens (bounds: NMSE at most {most:g}, top at least {least:g})"
    # `not <=`: a NaN fails too.
    if any(not (nmse <= most and top1 >= least) for nmse, top1 in found.values()):
        raise IntegrityError(f"the logits are not the source's: {said}", mend=WRONG)
    facts: dict[str, Any] = {"tokens": tokens}
    for name, (nmse, top1) in found.items():
        facts |= {f"nmse_{name}": nmse, f"top1_{name}": top1}
    return said, facts
