"""The check that the converted file tokenizes as the checkpoint's own tokenizer does.

A wrong tokenizer class converts without an error and fails, or babbles, only when used.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Final

from quantmint.assets.conversion.added import honoured
from quantmint.assets.conversion.corpus import plain_texts
from quantmint.assets.conversion.source_side import SourceSays, ask_source
from quantmint.assets.convert import Converted, converter_identity
from quantmint.assets.mint import Mint
from quantmint.assets.recipe import Recipe
from quantmint.assets.source import SourceWeights
from quantmint.assets.verdict import Verdict, judge
from quantmint.errors import BuildError, IntegrityError
from quantmint.files import digest_of
from quantmint.native.build import Bundle
from quantmint.native.conversion.ask import ask
from quantmint.registry.actions import Action

CHECK: Final = "tokenizer"
WRONG_CLASS: Final = (
    "the tokenizer class (tokenizer_config.json) or its files are wrong, or the converter does not "
    "know this tokenizer: correct the source and build again"
)


def check_tokens(
    mint: Mint, recipe: Recipe, source: SourceWeights, made: Converted, bundle: Bundle
) -> Verdict:
    """Compare token ids with the source's tokenizer; a GGUF source with its own round trip."""
    action = Action(
        name=CHECK,
        inputs={"source": source.blob.sha256, "fp16": made.blob.sha256},
        tools={"bundle": bundle.tree.sha256, **converter_identity()},
        arguments={"corpus": digest_of(plain_texts()), "version": 2},
    )
    if source.is_checkpoint:
        return judge(mint, action, lambda: _compare(mint, recipe, source, made, bundle))
    return judge(mint, action, lambda: _round_trip(mint, recipe, made, bundle))


def _compare(
    mint: Mint, recipe: Recipe, source: SourceWeights, made: Converted, bundle: Bundle
) -> tuple[str, Mapping[str, Any]]:
    says = ask_source(mint, recipe, source)
    path, log = mint.store.path(made.blob.sha256), mint.log(recipe.model, CHECK)
    try:
        found = ask(bundle, path, ["tokenize", "lone_bytes"], log, texts=says.texts)
    except BuildError as error:
        raise IntegrityError(
            f"llama.cpp can't tokenize with the converted file: {error.what}", mend=WRONG_CLASS
        ) from None
    ids = found["tokenize"]
    asked = [at for at, theirs in enumerate(says.ids) if theirs is not None]
    differing = [at for at in asked if tuple(ids[at]) != says.ids[at]]
    name = str(made.header.values.get("general.name", ""))
    first_spaced = len(says.texts) - says.spaced
    unable = [] if honoured(says.added, name) else [at for at in differing if at >= first_spaced]
    wrong = [at for at in differing if at not in set(unable)]
    if wrong:
        raise IntegrityError(_say(wrong, says, ids), mend=WRONG_CLASS)
    count = sum(len(ids[at]) for at in asked)
    reason = f"{count} token ids of {len(asked)} texts equal the source's"
    if len(asked) < len(ids):
        reason += f" ({len(ids) - len(asked)} with added tokens could not be asked)"
    if unable:
        reason += (
            f", except in {len(unable)} texts with blanks beside added tokens: the source's "
            "tokenizer strips them, which a GGUF file can't say"
        )
    facts = {
        "tokens": count, "texts": len(says.texts), "differing": len(unable),
        "added_tokens": len(says.added), "corpus": says.corpus,
    }  # fmt: skip
    return reason, facts


def _say(wrong: Sequence[int], says: SourceSays, ids: Sequence[Sequence[int]]) -> str:
    at = wrong[0]
    theirs, ours = says.ids[at] or (), tuple(ids[at])
    place = next(
        (n for n, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b),
        min(len(theirs), len(ours)),
    )
    return (
        f"token ids differ in {len(wrong)} of {len(says.texts)} texts (0 are allowed), first in "
        f"{says.texts[at][:40]!r} at token {place}: the source's tokenizer gives "
        f"{list(theirs[place : place + 8])}, the converted file {list(ours[place : place + 8])}"
    )


def _round_trip(
    mint: Mint, recipe: Recipe, made: Converted, bundle: Bundle
) -> tuple[str, Mapping[str, Any]]:
    path, log = mint.store.path(made.blob.sha256), mint.log(recipe.model, CHECK)
    texts = plain_texts()
    found = ask(bundle, path, ["round_trip", "lone_bytes"], log, texts=texts)["round_trip"]
    changed = [
        (text, back)
        for text, back in zip(texts, found, strict=True)
        if back.lstrip(" ") != text.lstrip(" ")
    ]
    # A vocabulary need not have every control character; what people write it must keep.
    for text, back in changed:
        if not any(_is_control(letter) for letter in text):
            raise IntegrityError(
                f"tokenizing and back changes {text[:40]!r} into {back[:40]!r}",
                mend="the GGUF file's tokenizer is broken: take another source",
            )
    kept = len(texts) - len(changed)
    reason = f"{kept} texts survive tokenizing and back; there is no source to compare with"
    if changed:
        reason += f"; {len(changed)} with control characters do not"
    return reason, {"texts": len(texts), "changed": len(changed)}


def _is_control(letter: str) -> bool:
    return unicodedata.category(letter) == "Cc" and letter not in "\t\n\r"
