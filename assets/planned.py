"""The check that a variant's header is as planned, before anything native reads the file."""

from __future__ import annotations

from typing import Final

from quantmint.assets.convert import Converted
from quantmint.assets.recipe import Recipe
from quantmint.assets.variants import Struck, table_digest
from quantmint.assets.verdict import Verdict
from quantmint.registry.gguf import Gguf

HEADER: Final = "header"
STOP: Final = "tokenizer.ggml.eos_token_id"
# What quantizing changes; every other key must be the FP16 file's own.
CHANGED: Final = frozenset({"general.file_type", "general.quantization_version"})
CHANGED_PREFIX: Final = "quantize.imatrix."


def check_header(recipe: Recipe, struck: Struck, fp16: Converted) -> Verdict:
    """Compare a variant's header with its plan and with the FP16 file it was struck from.

    Types, offsets and sizes must be those that llama.cpp's rules gave; names, shapes and all keys
    that quantizing does not touch (vocabulary, chat template, rope factors) the FP16 file's.
    """
    ours, theirs = struck.header, fp16.header
    problems = [*_tensors(struck, theirs), *_keys(ours, theirs), *_stop_token(ours)]
    allowed = recipe.gates.max_fallback_tensors
    if struck.fallbacks > allowed:
        problems.append(
            f"{struck.fallbacks} tensors fell back to another type, {allowed} are allowed "
            "(gates: max_fallback_tensors)"
        )
    facts = {"tensors": len(ours.tensors), "fallback_tensors": struck.fallbacks}
    if problems:
        mend = "strike it again from a sound source: quantmint build MODEL"
        return Verdict(HEADER, False, f"{'; '.join(problems)}: {mend}", facts)
    reason = (
        f"{len(ours.tensors)} tensors of {ours.size} bytes as planned, "
        f"{struck.fallbacks} fallbacks (allowed {allowed}), keys as in the FP16 file"
    )
    return Verdict(HEADER, True, reason, facts)


def _tensors(struck: Struck, theirs: Gguf) -> list[str]:
    ours = struck.header
    problems = []
    if {t.name: t.shape for t in ours.tensors} != {t.name: t.shape for t in theirs.tensors}:
        problems.append("its tensors have other names or shapes than the FP16 file's")
    rows = ((t.name, t.type.name, t.offset, t.size) for t in ours.tensors)
    if table_digest(rows) != struck.plan:
        problems.append("its tensors' types, places or sizes are not as planned")
    return problems


def _keys(ours: Gguf, theirs: Gguf) -> list[str]:
    different = [
        key
        for key in sorted({*ours.values, *theirs.values})
        if key not in CHANGED
        and not key.startswith(CHANGED_PREFIX)
        and not _equal(ours.values.get(key), theirs.values.get(key))
    ]
    if not different:
        return []
    more = f" and {len(different) - 3} more" if len(different) > 3 else ""
    return [f"its keys {', '.join(different[:3])}{more} are not the FP16 file's"]


def _equal(one: object, other: object) -> bool:
    return type(one) is type(other) and bool(one == other)


def _stop_token(ours: Gguf) -> list[str]:
    """A vocabulary without its end-of-sequence token makes a model that never stops."""
    vocabulary = ours.values.get("tokenizer.ggml.tokens")
    if vocabulary is None:
        return []
    stop = ours.values.get(STOP)
    if isinstance(stop, int) and 0 <= stop < len(vocabulary):
        return []
    return [f"its stop token ({STOP}) is missing or outside of the vocabulary"]
