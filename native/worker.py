"""A child process that uses llama-cpp-python on libraries that this project built.

Reads one JSON request from standard input and writes one JSON answer as the last line of
standard output. The parent sets LLAMA_CPP_LIB_PATH, memory limits and its own death as ours: a
model file is foreign input to a native parser, so it is not touched in the parent.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from quantmint.native.evaluation.child.llama import load_kernel


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Do what the request's `task` names."""
    tasks = {"tokenize": tokenize, "round_trip": round_trip}
    return tasks[request["task"]](request)


def tokenize(request: dict[str, Any]) -> dict[str, Any]:
    """Return the token ids of each text, special tokens in the text parsed, no BOS added."""
    from llama_cpp import Llama

    model = Llama(model_path=request["model"], vocab_only=True, verbose=False)
    ids = [model.tokenize(text.encode(), add_bos=False, special=True) for text in request["texts"]]
    return {"ids": ids}


def round_trip(request: dict[str, Any]) -> dict[str, Any]:
    """Return each text after tokenizing it and back."""
    from llama_cpp import Llama

    model = Llama(model_path=request["model"], vocab_only=True, verbose=False)
    texts = []
    for text in request["texts"]:
        ids = model.tokenize(text.encode(), add_bos=False, special=False)
        texts.append(model.detokenize(ids).decode("utf-8", "replace"))
    return {"texts": texts}


def main() -> None:
    """Answer the one request on standard input."""
    request = json.load(sys.stdin)
    load_kernel(Path(request["kernel"]))
    result = answer(request)
    sys.stdout.write("\n" + json.dumps(result) + "\n")
    sys.stdout.flush()
    # Nothing is left to do, and an interpreter that is taken down frees what llama.cpp still uses.
    os._exit(0)


if __name__ == "__main__":
    main()
