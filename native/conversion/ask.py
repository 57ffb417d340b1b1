"""Asking the child that has llama.cpp and the converted file loaded."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from quantmint.errors import IntegrityError
from quantmint.native.build import Bundle
from quantmint.native.tools import PATIENT, model_limits
from quantmint.process import Command, answer_of, run

# llama.cpp's tools may end before their log's own thread has written all of it, the more so on a
# busy machine: then they are run again.
LOST_LINES_TRIES: Final = 30
_PROMPT_TOKEN: Final = re.compile(r"^[\d.]+ I +(\d+) -> '", re.MULTILINE)
_PROMPT_LENGTH: Final = re.compile(r"number of tokens in prompt = (\d+)$", re.MULTILINE)


def ask(
    bundle: Bundle, model: Path, tasks: Sequence[str], log: Path, **request: object
) -> Mapping[str, Any]:
    """Have the child do `tasks` (see there) with `request`; return its answer by task.

    Raises:
        BuildError: the file does not load, or a text ended the child.
    """
    body = {
        "model": str(model), "kernel": str(bundle.kernel_library), "tasks": list(tasks), **request,
    }  # fmt: skip
    command = Command(
        argv=[sys.executable, "-m", "quantmint.native.conversion.child"],
        env={
            "LLAMA_CPP_LIB_PATH": str(bundle.folder), "PYTHONDONTWRITEBYTECODE": "1", **PATIENT,
        },
        limits=model_limits(model, seconds=4 * 3600),
        stdin=json.dumps(body, default=str).encode(),
        log=log,
    )  # fmt: skip
    return answer_of(command, run(command))


def prompt_ids(
    bundle: Bundle, model: Path, user: str, system: str | None, *, log: Path
) -> list[int]:
    """Return the tokens that llama.cpp's own chat engine makes of one turn.

    That is `llama-completion --jinja`, as users run it, asked to tell its prompt and stop.

    Raises:
        BuildError: the file does not load, or its template ended the tool.
        IntegrityError: the tool told no prompt.
    """
    words: list[str | Path] = [
        bundle.tool("llama-completion"), "--model", model, "--jinja", "--single-turn",
        "--prompt", user, "--no-escape", "--n-predict", "0", "--ctx-size", "512", "--fit", "off",
        "--verbose-prompt", "--no-warmup", "--offline", "--gpu-layers", "0", "--threads", "1",
    ]  # fmt: skip
    words += [] if system is None else ["--system-prompt", system]
    command = Command(argv=words, env=PATIENT, limits=model_limits(model, seconds=3600), log=log)
    for _ in range(LOST_LINES_TRIES):
        finished = run(command)
        said = finished.stdout + "\n" + finished.stderr
        ids = [int(found) for found in _PROMPT_TOKEN.findall(said)]
        counted = _PROMPT_LENGTH.search(said)
        if counted is not None and int(counted[1]) == len(ids):
            return ids
    raise IntegrityError(
        f"llama-completion told no whole prompt; its output is in {log}",
        mend="run the same command again",
    )
