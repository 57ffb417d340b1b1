"""Asking the worker child: tokenizing through llama-cpp-python."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quantmint.native.build import Bundle
from quantmint.native.tools import PATIENT, model_limits
from quantmint.process import Command, failure, run


def tokenize(bundle: Bundle, model: Path, texts: Sequence[str], *, log: Path) -> list[list[int]]:
    """Return llama.cpp's token ids of each text: specials parsed, no BOS added.

    Raises:
        BuildError: the vocabulary does not load, or a text ended the child.
    """
    found: list[list[int]] = _ask(bundle, model, {"task": "tokenize", "texts": texts}, log)["ids"]
    return found


def round_trip(bundle: Bundle, model: Path, texts: Sequence[str], *, log: Path) -> list[str]:
    """Return each text after llama.cpp tokenized it and back.

    Raises:
        BuildError: the vocabulary does not load, or a text ended the child.
    """
    request = {"task": "round_trip", "texts": texts}
    found: list[str] = _ask(bundle, model, request, log)["texts"]
    return found


def _ask(bundle: Bundle, model: Path, request: dict[str, Any], log: Path) -> dict[str, Any]:
    body = {**request, "model": str(model), "kernel": str(bundle.kernel_library)}
    command = Command(
        argv=[sys.executable, "-m", "quantmint.native.worker"],
        env={
            "LLAMA_CPP_LIB_PATH": str(bundle.folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            **PATIENT,
        },
        limits=model_limits(model, seconds=4 * 3600),
        stdin=json.dumps(body).encode(),
        log=log,
    )
    finished = run(command)
    try:
        value: dict[str, Any] = json.loads(finished.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        raise failure(command, finished, "gave no answer") from None
    return value
