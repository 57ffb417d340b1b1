"""Added tokens, and the one way in which llama.cpp can be told that they strip blanks.

A tokenizer may say of an added token that it swallows the blanks around it (`lstrip`, `rstrip`).
GGUF has no key for that: llama.cpp strips after Phi-3's tokens if `general.name` contains `phi-3`
or `phi3`, and else never (`src/llama-vocab.cpp`, "Handle per token attributes"). The converter
makes the name of the folder's, with spaces for dashes, so that a converted Phi-3 reads its own
chat format with extra newline tokens. Hence the name is chosen here, by what the tokenizer says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from quantmint.assets.sources.checkpoint import read_json

# llama.cpp looks these four up by name once a model's name says Phi-3, and fails without one.
NEEDED: Final = ("</s>", "<unk>", "<s>", "<|endoftext|>")
NEVER_STRIP: Final = frozenset(NEEDED[1:])
SIGNS: Final = ("phi-3", "phi3")


@dataclass(frozen=True, slots=True)
class AddedToken:
    """One added token: its text, and whether it swallows the blanks before and after it."""

    content: str
    lstrip: bool
    rstrip: bool


def added_tokens(folder: Path) -> tuple[AddedToken, ...]:
    """Return the added tokens of a checkpoint's tokenizer, as its JSON files have them.

    Raises:
        SourceError: a file is no valid JSON.
    """
    path = folder / "tokenizer.json"
    rows: Iterable[Any] = read_json(path).get("added_tokens") or () if path.is_file() else ()
    path = folder / "tokenizer_config.json"
    if not rows and path.is_file():
        listed = read_json(path).get("added_tokens_decoder")
        rows = listed.values() if isinstance(listed, Mapping) else ()
    found = (
        row for row in rows if isinstance(row, Mapping) and isinstance(row.get("content"), str)
    )
    return tuple(
        AddedToken(row["content"], row.get("lstrip") is True, row.get("rstrip") is True)
        for row in found
        if row["content"]
    )


def strips_as_phi_3(tokens: Iterable[AddedToken]) -> bool:
    """Return whether llama.cpp's rule for Phi-3 is what these tokens say of themselves."""
    by_text = {token.content: token for token in tokens}
    if not all(name in by_text for name in NEEDED):
        return False
    return all(
        token.rstrip == (name not in NEVER_STRIP) and not token.lstrip
        for name, token in by_text.items()
    )


def honoured(tokens: Iterable[AddedToken], name: str) -> bool:
    """Return whether a file of that `general.name` strips blanks as the tokens say."""
    listed = tuple(tokens)
    if says_phi_3(name):
        return strips_as_phi_3(listed)
    return not any(token.lstrip or token.rstrip for token in listed)


def says_phi_3(name: str) -> bool:
    """Return whether llama.cpp takes a model of that name for a Phi-3."""
    return any(sign in name.lower() for sign in SIGNS)


def model_name(folder: Path, name: str) -> str | None:
    """Return the `general.name` that makes llama.cpp strip as the tokenizer does.

    None leaves the choice to the converter: its own name does no harm.

    Raises:
        SourceError: a tokenizer file is no valid JSON.
    """
    if strips_as_phi_3(added_tokens(folder)):
        return name if says_phi_3(name) else f"{name} (phi-3 tokens)"
    config = read_json(folder / "config.json").get("_name_or_path")
    # The converter writes spaces for dashes: of the two signs only this one stays whole.
    if "phi3" in f"{name} {config}".lower():
        return name.lower().replace("phi3", "phi 3").replace("phi-3", "phi 3")
    return None
