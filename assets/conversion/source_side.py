"""What the source says: its own tokenizer's ids and its template's renderings, asked once."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from quantmint.assets.conversion.added import AddedToken, added_tokens
from quantmint.assets.conversion.corpus import CONVERSATIONS, plain_texts, texts_with
from quantmint.assets.convert import checkpoint_name, converter_identity
from quantmint.assets.mint import Mint
from quantmint.assets.recipe import Recipe
from quantmint.assets.source import SourceWeights
from quantmint.errors import IntegrityError
from quantmint.files import canonical_json, digest_of
from quantmint.process import Command, Limits, failure, run
from quantmint.registry.actions import Action, Outcome, perform
from quantmint.registry.trees import checkout, load_tree

OFFLINE: Final = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
ANSWER_LIMIT: Final = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSays:
    """The source's answers: `ids` for each text, and what its template makes of conversations.

    Where transformers can't load the tokenizer and SentencePiece alone was asked, texts with added
    tokens have no ids (None), and no conversation is rendered.
    `spaced` is how many of the texts, the last ones, have blanks around added tokens.
    """

    added: tuple[AddedToken, ...]
    texts: tuple[str, ...]
    spaced: int
    ids: tuple[tuple[int, ...] | None, ...]
    rendered: tuple[Mapping[str, Any], ...]
    template: str | None

    @property
    def corpus(self) -> str:
        """The digest of all texts and conversations."""
        return digest_of([self.texts, CONVERSATIONS])


def source_folder(mint: Mint, recipe: Recipe, source: SourceWeights) -> Path:
    """Return the checkpoint's folder in the store."""
    return checkout(mint.store, load_tree(mint.store, source.blob), checkpoint_name(recipe))


def ask_source(mint: Mint, recipe: Recipe, source: SourceWeights) -> SourceSays:
    """Tokenize the corpus and render the conversations with the checkpoint's own tokenizer.

    Raises:
        IntegrityError: the tokenizer does not load.
        SourceError: one of its files is no valid JSON.
    """
    folder = source_folder(mint, recipe, source)
    added = added_tokens(folder)
    glued, spaced = texts_with(added)
    texts = (*plain_texts(), *glued, *spaced)
    action = Action(
        name="source-tokenizer",
        inputs={"source": source.blob.sha256},
        tools=converter_identity(),
        arguments={"corpus": digest_of([texts, CONVERSATIONS])},
    )

    def ask() -> Outcome:
        request = {
            "folder": str(folder), "texts": texts, "conversations": CONVERSATIONS,
            "added": [token.content for token in added],
        }  # fmt: skip
        answer = _ask(request, mint.log(recipe.model, "source-tokenizer"))
        return Outcome(outputs={"answer": mint.store.put_bytes(canonical_json(answer))})

    blob = perform(mint.store, action, ask).outputs["answer"]
    answer = json.loads(mint.store.read(blob, limit=ANSWER_LIMIT))
    return SourceSays(
        added=added,
        texts=texts,
        spaced=len(spaced),
        ids=tuple(None if row is None else tuple(row) for row in answer["ids"]),
        rendered=tuple(answer["rendered"]),
        template=answer["template"],
    )


def _ask(request: Mapping[str, Any], log: Path) -> Mapping[str, Any]:
    command = Command(
        argv=[sys.executable, "-m", "quantmint.assets.conversion.source_child"],
        env=OFFLINE,
        limits=Limits(wall_seconds=1800),
        stdin=json.dumps(request).encode(),
        log=log,
    )
    finished = run(command, check=False)
    try:
        if finished.code != 0:
            raise ValueError(finished.code)
        answer: dict[str, Any] = json.loads(finished.stdout.strip().splitlines()[-1])
        _check(answer["ids"], request["texts"])
    except (ValueError, IndexError, KeyError, TypeError):
        error = failure(command, finished, "could not load the source's own tokenizer")
        raise IntegrityError(
            error.what, mend="correct tokenizer_config.json and the tokenizer's files"
        ) from None
    return answer


def _check(ids: Sequence[Sequence[int] | None], texts: Sequence[str]) -> None:
    if len(ids) != len(texts) or not all(type(at) is int for row in ids for at in row or ()):
        raise ValueError("the ids")
