"""Answering prompts greedily in the model's own template, and looking at the answers."""

from __future__ import annotations

from typing import Any

import numpy as np

from quantmint.errors import IntegrityError
from quantmint.native.evaluation.child.llama import Context, Model

GRAM = 4
PERIODS = 3  # an answer loops when its end is one sequence this often in a row
LOOP_TOKENS = 12  # and that end is at least so long


def talk(model: Model, request: dict[str, Any], threads: int) -> list[dict[str, Any]]:
    """Return a reply to each prompt."""
    size = int(request["context"])
    with Context(model, size, threads=threads) as reader:
        return [_reply(reader, prompt, request) for prompt in request["prompts"]]


def _reply(reader: Context, prompt: str, request: dict[str, Any]) -> dict[str, Any]:
    model = reader.model
    rendered = render(model, prompt, request["format"])
    tokens = model.tokenize(rendered.encode(), special=True, parse=True)
    room = int(request["context"]) - len(tokens)
    if room < 1 or len(tokens) > reader.batch_size:
        raise IntegrityError(
            f"its chat template makes {len(tokens)} tokens of the prompt {prompt[:40]!r}; "
            f"the context has {request['context']}",
            mend="compare the template with the source's, or ask for a longer context",
        )
    reader.clear()
    said, ended, finite = [], "length", True
    at = 0
    for _ in range(min(int(request["max_tokens"]), room)):
        last = np.arange(len(tokens)) == len(tokens) - 1
        reader.add(tokens, at, wanted=last)
        at += len(tokens)
        logits = reader.decode()[0]
        finite = finite and bool(np.isfinite(logits).all())
        best = int(np.argmax(logits))
        if not finite or model.ends_turn(best):
            ended = "stop" if finite else "length"
            break
        said.append(best)
        tokens = np.array([best], dtype=np.int32)
    text = b"".join(model.piece(token, special=False) for token in said)
    return {
        "prompt": prompt, "rendered": rendered, "text": text.decode("utf-8", "replace"),
        "ended": ended, "tokens": len(said), "finite": finite,
        "repetition": repetition(said), "looping": loops(said),
    }  # fmt: skip


def render(model: Model, prompt: str, plain: str) -> str:
    """Render the file's own chat template, or the model file's plain format where it has none."""
    template = model.template()
    if template is None:
        return plain.format(prompt=prompt)
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    def text(token: int) -> str:
        return model.piece(token, special=True).decode("utf-8", "replace") if token >= 0 else ""

    bos = text(model.bos)
    eos = text(int(model.lib.llama_vocab_eos(model.vocab)))
    formatter = Jinja2ChatFormatter(template=template, bos_token=bos, eos_token=eos)
    made: str = formatter(messages=[{"role": "user", "content": prompt}]).prompt
    # Tokenizing adds the BOS itself when the vocabulary asks for one.
    return made.removeprefix(bos) if bos and model.add_bos else made


def repetition(tokens: list[int]) -> float:
    """Return the share of four-token sequences that occurred before; 0 for a short text."""
    grams = [tuple(tokens[at : at + GRAM]) for at in range(len(tokens) - GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def loops(tokens: list[int]) -> bool:
    """Return whether the text ends in one sequence of tokens, three times or more in a row."""
    for period in range(1, len(tokens) // PERIODS + 1):
        length = max(PERIODS * period, LOOP_TOKENS)
        tail = tokens[-length:]
        if len(tail) == length and tail[period:] == tail[:-period]:
            return True
    return False
