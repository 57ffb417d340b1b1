"""What ends a turn: Ollama's `params`, made from the vocabulary and the chat template of a file.

Ollama takes `params` from the root of a repository: a JSON object whose `stop` lists texts at
which it ends an answer (hub-docs, `docs/hub/ollama.md`).
"""

from __future__ import annotations

import json
from typing import Final

from quantmint.registry.stops import stop_texts

__all__ = ["PARAMS", "params_bytes", "stop_texts"]
PARAMS: Final = "params"


def params_bytes(stops: tuple[str, ...]) -> bytes:
    """Return Ollama's `params` file."""
    return (json.dumps({"stop": list(stops)}, indent=2, ensure_ascii=False) + "\n").encode()
