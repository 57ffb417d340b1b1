"""Answer one request on standard input with one line of JSON, the last on standard output.

The parent sets LLAMA_CPP_LIB_PATH, limits and its own death as ours. What the child refuses, it
says as an error class, what happened and what mends it; anything else ends it with a traceback.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from quantmint.errors import QuantmintError
from quantmint.native.evaluation.child.llama import Model, load_kernel


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Load the model once and do all jobs of the request; seconds are told for each."""
    from quantmint.native.evaluation.child import choices, divergence, probe, talk

    path, threads = Path(request["model"]), int(request["threads"])
    jobs: dict[str, Any] = request["jobs"]
    result: dict[str, Any] = {"seconds": {}}
    before = probe.resident("VmRSS")

    def timed(name: str, work: Any) -> None:  # noqa: ANN401
        started = time.monotonic()
        result[name] = work()
        result["seconds"][name] = time.monotonic() - started

    if jobs["accounting"]:
        layers = int(request["gpu_layers"])
        timed("accounting", lambda: probe.account(path, jobs["accounting"], layers, threads))
    if not any(value for name, value in jobs.items() if name != "accounting"):
        return result
    started = time.monotonic()
    model = Model(path, gpu_layers=int(request["gpu_layers"]))
    result["seconds"]["load"] = time.monotonic() - started
    # Memory first: what a process held at its highest can only grow.
    if jobs["weighing"]:
        timed("weighing", lambda: probe.weigh(model, jobs["weighing"], threads, before))
    if jobs["probe"]:
        timed("probe", lambda: probe.probe(model, jobs["probe"], threads))
    if jobs["basing"]:
        timed("basing", lambda: divergence.write_bases(model, jobs["basing"], threads))
    if jobs["divergence"]:
        folder = Path(jobs["divergence"])
        timed("divergence", lambda: divergence.compare_bases(model, folder, threads))
    if jobs["tasks"]:
        timed("tasks", lambda: choices.answer_tasks(model, jobs["tasks"], threads))
    if jobs["talk"]:
        timed("talk", lambda: talk.talk(model, jobs["talk"], threads))
    result["warnings"] = model.journal.warnings
    return result


def main() -> None:
    """Answer the one request on standard input."""
    request = json.load(sys.stdin)
    try:
        load_kernel(Path(request["kernel"]))
        result = answer(request)
    except QuantmintError as error:
        refused = {"class": type(error).__name__, "what": error.what, "mend": error.mend}
        result = {"refused": refused}
    sys.stdout.write("\n" + json.dumps(result) + "\n")
    sys.stdout.flush()
    # Nothing is left to do, and an interpreter that is taken down frees what llama.cpp still uses.
    os._exit(0)


if __name__ == "__main__":
    main()
