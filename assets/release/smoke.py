"""The test on the bytes that were read back: the strict gate, a load, a short conversation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from quantmint.assets.mint import Mint
from quantmint.assets.release.inputs import Inputs
from quantmint.errors import IntegrityError
from quantmint.native.evaluation.engine import evaluate
from quantmint.native.evaluation.jobs import Jobs, Setup, Talk
from quantmint.registry import gguf
from quantmint.registry.linter.listing import is_model

TOKENS: Final = 24


def smoke_test(mint: Mint, inputs: Inputs) -> Callable[[str, Path], None]:
    """Return the test of one file: its path in the release, and a local copy that came back."""
    recipe = inputs.recipe
    talk = Talk(prompts=(recipe.assay.prompt,), format=recipe.assay.format, max_tokens=TOKENS)

    def test(path: str, local: Path) -> None:
        if not path.endswith(".gguf"):
            return
        gguf.read(local)
        if not is_model(path):
            return
        setup = Setup(threads=mint.threads, gpu_layers=recipe.assay.gpu_layers)
        log = mint.log(recipe.model, f"release-{path}")
        found = evaluate(inputs.bundle, local, Jobs(talk=talk), setup=setup, log=log)
        (reply,) = found.replies
        if not reply.finite or (recipe.gates.chat and not _has_words(reply.text)):
            what = "its logits hold NaN or infinity" if not reply.finite else "it has no words"
            raise IntegrityError(
                f"{path}, read back and asked {recipe.assay.prompt[:60]!r}: {what}; nothing was "
                "promoted",
                mend=f"compare with `quantmint build {recipe.model}`; if that passes, the registry "
                "or this machine's memory alters bytes",
            )
        mint.report(f"{path}: loaded and answered with {reply.tokens} tokens")

    return test


def _has_words(text: str) -> bool:
    return any(letter.isalnum() for letter in text)
