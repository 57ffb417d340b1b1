"""A child process that answers what llama.cpp makes of a converted file.

Reads one JSON request from standard input, writes one JSON answer as the last line of standard
output. The parent sets LLAMA_CPP_LIB_PATH, limits and its own death as ours: a model file is
foreign input to a native parser, and its chat template to a template engine.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quantmint.errors import QuantmintError
from quantmint.native.evaluation.child.llama import Context, Model, load_kernel


def tokenize(model: Model, request: dict[str, Any]) -> Any:  # noqa: ANN401
    """Return the ids of each text: special tokens in it parsed, no BOS added."""
    return [_ids(model, text.encode()) for text in request["texts"]]


def lone_bytes(model: Model, request: dict[str, Any]) -> Any:  # noqa: ANN401
    """Tokenize every byte by itself, and return the bytes that the tokens stand for."""
    del request
    found = [_ids(model, bytes([at])) for at in range(256)]
    return [b"".join(model.piece(t, special=True) for t in ids).hex() for ids in found]


def round_trip(model: Model, request: dict[str, Any]) -> Any:  # noqa: ANN401
    """Return each text after tokenizing it and back."""
    pieces = (_ids(model, text.encode(), parse=False) for text in request["texts"])
    return [
        b"".join(model.piece(t, special=False) for t in ids).decode("utf-8", "replace")
        for ids in pieces
    ]


def render(model: Model, request: dict[str, Any]) -> Any:  # noqa: ANN401
    """Return each conversation in the file's own template, as text and ids, or why it refuses.

    The engine is Jinja, in its sandbox, as llama-cpp-python uses it.
    """
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    lib = model.lib
    ends = (lib.llama_vocab_bos(model.vocab), lib.llama_vocab_eos(model.vocab))
    bos, eos = (model.piece(t, special=True).decode() if t >= 0 else "" for t in ends)
    template = model.template()
    if template is None:
        return []
    formatter = Jinja2ChatFormatter(template=template, bos_token=bos, eos_token=eos)
    found: list[dict[str, Any]] = []
    for conversation in request["conversations"]:
        try:
            text = formatter(messages=conversation).prompt
        except Exception as error:  # noqa: BLE001  (a template raises what it likes)
            found.append({"refused": str(error)[:200]})
            continue
        found.append({"text": text, "ids": _ids(model, text.encode())})
    return found


def logits(model: Model, request: dict[str, Any]) -> Any:  # noqa: ANN401
    """Write the logits of the tokens in contexts of the given sizes, (tokens, vocabulary)."""
    import numpy as np

    ids = np.array(request["tokens"], dtype=np.int32)
    for context, target in request["targets"]:
        with Context(model, int(context), threads=int(request["threads"])) as reader:
            reader.clear()
            reader.add(ids, 0, wanted=True)
            np.save(target, reader.decode(), allow_pickle=False)
    return len(ids)


TASKS: dict[str, Callable[[Model, dict[str, Any]], Any]] = {
    "tokenize": tokenize,
    "lone_bytes": lone_bytes,
    "round_trip": round_trip,
    "render": render,
    "logits": logits,
}


def _ids(model: Model, text: bytes, *, parse: bool = True) -> list[int]:
    return [int(token) for token in model.tokenize(text, special=False, parse=parse)]


def main() -> None:
    """Answer the one request on standard input."""
    request = json.load(sys.stdin)
    load_kernel(Path(request["kernel"]))
    try:
        model = Model(Path(request["model"]), gpu_layers=0)
    except QuantmintError as error:
        raise SystemExit(str(error)) from None
    result = {task: TASKS[task](model, request) for task in request["tasks"]}
    sys.stdout.write("\n" + json.dumps(result) + "\n")
    sys.stdout.flush()
    # Nothing is left to do, and an interpreter that is taken down frees what llama.cpp still uses.
    os._exit(0)


if __name__ == "__main__":
    main()
