"""The check that the converted file tokenizes as the checkpoint's own tokenizer does.

A wrong tokenizer class converts without an error and fails, or babbles, only when used.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any, Final

from quantmint.assets.convert import Converted, checkpoint_name, converter_identity
from quantmint.assets.mint import Mint
from quantmint.assets.recipe import Recipe
from quantmint.assets.source import SourceWeights
from quantmint.assets.verdict import Verdict, judge
from quantmint.errors import BuildError, IntegrityError
from quantmint.files import digest_of
from quantmint.native import bindings
from quantmint.native.build import Bundle
from quantmint.process import Command, Limits, failure, run
from quantmint.registry.actions import Action
from quantmint.registry.trees import checkout, load_tree

# Texts that tokenizers disagree on: runs of spaces, digits, code, scripts, joined emoji.
CORPUS: Final = (
    "The quick brown fox jumps over the lazy dog.",
    "Can you introduce .NET?",
    "for (int i = 0; i < 1024; ++i) {\n\tsum += a[i] * 3.14159e-7;\n}",
    "def f(x: int) -> int:\n    return x ** 2  # squared\n\n\nprint(f(12345678901234567890))",
    "a  b   c    d     e\n\n\n\tf",
    "naïve café, Straße, žluťoučký kůň, ÅÄÖ",
    "Привет, мир. 你好,世界。こんにちは世界 안녕하세요",
    "שלום עולם مرحبا بالعالم",
    "👍🏽 👩‍👩‍👧‍👦 🇫🇮 e\u0301 \u200b\u00a0|",
    "don't I'LL they've WE'RE 3.5% $1,000.00 #tag @user http://a.b/c?d=e&f",
    '{"key": [1, 2.5, null, true], "nested": {"a": "b\\n"}}',
    "x" * 64 + " " + "=" * 40 + " " + "0" * 33,
)


def check_tokens(
    mint: Mint, recipe: Recipe, source: SourceWeights, made: Converted, bundle: Bundle
) -> Verdict:
    """Compare token ids with the source's tokenizer; a GGUF source with its own round trip."""
    action = Action(
        name="tokenizer",
        inputs={"source": source.blob.sha256, "fp16": made.blob.sha256},
        tools={"bundle": bundle.tree.sha256, **converter_identity()},
        arguments={"corpus": digest_of(CORPUS)},
    )
    if source.is_checkpoint:
        return judge(mint, action, lambda: _compare(mint, recipe, source, made, bundle))
    return judge(mint, action, lambda: _round_trip(mint, recipe, made, bundle))


def _compare(
    mint: Mint, recipe: Recipe, source: SourceWeights, made: Converted, bundle: Bundle
) -> tuple[str, Mapping[str, Any]]:
    expected = _source_ids(mint, recipe, source)
    path = mint.store.path(made.blob.sha256)
    log = mint.log(recipe.model, "tokenizer")
    try:
        found = bindings.tokenize(bundle, path, CORPUS, log=log)
    except BuildError as error:
        raise IntegrityError(
            f"llama.cpp can't tokenize with the converted file: {error.what}",
            mend="the checkpoint names a wrong tokenizer class (tokenizer_config.json), or the "
            "converter does not know its tokenizer: correct the source and build again",
        ) from None
    for text, theirs, ours in zip(CORPUS, expected, found, strict=True):
        if theirs != ours:
            raise IntegrityError(
                f"token ids differ on {text[:40]!r}: the source's tokenizer gives "
                f"{theirs[:12]}, the converted file {ours[:12]}",
                mend="the tokenizer class or its files are wrong: correct the source",
            )
    count = sum(len(ids) for ids in found)
    return f"{count} token ids of {len(CORPUS)} texts equal the source's", {"tokens": count}


def _source_ids(mint: Mint, recipe: Recipe, source: SourceWeights) -> list[list[int]]:
    folder = checkout(mint.store, load_tree(mint.store, source.blob), checkpoint_name(recipe))
    command = Command(
        argv=[sys.executable, "-m", "quantmint.assets.source_tokenizer"],
        env={"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        limits=Limits(wall_seconds=900),
        stdin=json.dumps({"folder": str(folder), "texts": CORPUS}).encode(),
        log=mint.log(recipe.model, "source-tokenizer"),
    )
    finished = run(command, check=False)
    try:
        if finished.code != 0:
            raise ValueError(finished.code)
        ids: list[list[int]] = json.loads(finished.stdout.strip().splitlines()[-1])["ids"]
    except (ValueError, IndexError, KeyError):
        error = failure(command, finished, "could not load the source's own tokenizer")
        raise IntegrityError(
            error.what, mend="correct tokenizer_config.json and the tokenizer's files"
        ) from None
    return ids


def _round_trip(
    mint: Mint, recipe: Recipe, made: Converted, bundle: Bundle
) -> tuple[str, Mapping[str, Any]]:
    path = mint.store.path(made.blob.sha256)
    log = mint.log(recipe.model, "tokenizer")
    texts = bindings.round_trip(bundle, path, CORPUS, log=log)
    for text, back in zip(CORPUS, texts, strict=True):
        if back.lstrip(" ") != text.lstrip(" "):
            raise IntegrityError(
                f"tokenizing and back changes {text[:40]!r} into {back[:40]!r}",
                mend="the GGUF file's tokenizer is broken: take another source",
            )
    return f"{len(CORPUS)} texts survive tokenizing and back", {"texts": len(CORPUS)}
