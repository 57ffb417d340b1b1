"""What ends a turn, by the vocabulary and the chat template of a GGUF file: text only."""

from __future__ import annotations

import re
from typing import Final

from quantmint.registry.gguf import Gguf

TEMPLATE: Final = "tokenizer.chat_template"
# Token types of GGUF (ggml, docs/gguf.md): 3 is control, 4 is user-defined.
CONTROL: Final = frozenset({3, 4})
ENDS: Final = ("eos_token_id", "eot_token_id", "eom_token_id")
MOST: Final = 8
# A turn of another speaker begins with such a token; where a template writes it, it ends a turn.
_ROLE: Final = re.compile(r"<\|?(?:end|eot_id|im_end|im_start|user|assistant|system|endoftext|"
                          r"end_of_turn|start_of_turn)\|?>")  # fmt: skip


def stop_texts(header: Gguf) -> tuple[str, ...]:
    """Return the texts that end a turn: the file's own end tokens, then those of its template.

    Only tokens of the vocabulary that are marked as control count: a template can name anything.
    """
    vocabulary = header.values.get("tokenizer.ggml.tokens", ())
    kinds = header.values.get("tokenizer.ggml.token_type", ())
    found: list[str] = []
    for key in ENDS:
        at = header.values.get(f"tokenizer.ggml.{key}")
        if isinstance(at, int) and 0 <= at < len(vocabulary):
            found.append(vocabulary[at])
    template = header.values.get(TEMPLATE)
    if isinstance(template, str):
        control = {text for text, kind in zip(vocabulary, kinds, strict=False) if kind in CONTROL}
        found += [text for text in _ROLE.findall(template) if text in control]
    plain = (text for text in dict.fromkeys(found) if text.isprintable() and text.strip())
    return tuple(plain)[:MOST]
