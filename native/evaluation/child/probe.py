"""Logits on a few fixed tokens, for comparing kernels; and memory, as llama.cpp reports it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from quantmint.errors import UserError
from quantmint.files import full_disk_explained, temporary_name
from quantmint.native.evaluation.child.llama import Context, Logits, Model


def probe(model: Model, request: dict[str, Any], threads: int) -> dict[str, Any]:
    """Write the logits, and say how they hash for each thread count and repetition.

    Raises:
        UserError: the text is too short.
    """
    count = int(request["tokens"])
    ids = model.tokenize(request["text"].encode(), special=True, parse=False)[:count]
    if len(ids) < count:
        raise UserError(f"the probe's text has {len(ids)} tokens, {count} are asked for")
    digests = []
    kept: Logits | None = None
    for used in dict.fromkeys([threads, *request["threads"]]):
        runs = []
        for _ in range(1 + int(request["again"])):
            logits = _logits(model, ids, used)
            kept = logits if kept is None else kept
            runs.append(hashlib.sha256(logits.tobytes()).hexdigest())
        digests.append([used, runs])
    assert kept is not None
    target = Path(request["target"])
    staged = temporary_name(target)
    try:
        with full_disk_explained(target.parent), staged.open("xb") as file:
            np.save(file, kept, allow_pickle=False)
        staged.rename(target)
    finally:
        staged.unlink(missing_ok=True)
    return {"digests": digests, "tokens": len(ids)}


def _logits(model: Model, ids: Any, threads: int) -> Logits:  # noqa: ANN401
    """Return (2 x tokens, vocabulary): the tokens read at once, then read one by one."""
    with Context(model, max(256, len(ids)), threads=threads) as reader:
        reader.clear()
        reader.add(ids, 0, wanted=True)
        parts = [reader.decode().copy()]
        reader.clear()
        for at in range(len(ids)):
            reader.add(ids[at : at + 1], at, wanted=True)
            parts.append(reader.decode().copy())
    return np.concatenate(parts)


def weigh(model: Model, request: dict[str, Any], threads: int, before: int) -> dict[str, Any]:
    """Read a prompt and generate a token in a context, and say how large the process became."""
    context = int(request["context"])
    tokens = min(int(request["tokens"]), context - 1)
    ids = np.arange(tokens, dtype=np.int32) % model.n_vocab
    with Context(model, context, threads=threads) as reader:
        for at in range(0, tokens, reader.batch_size):
            part = ids[at : at + reader.batch_size]
            reader.add(part, at, wanted=np.arange(at, at + len(part)) == tokens - 1)
            reader.decode()
        reader.add(ids[:1], tokens, wanted=True)
        reader.decode()
    return {
        "context": context, "tokens": tokens, "resident": resident("VmHWM"), "before": before,
    }  # fmt: skip


def account(path: Path, contexts: list[int], gpu_layers: int, threads: int) -> list[dict[str, Any]]:
    """Return llama.cpp's own sizes of cache and compute buffers at each context.

    It lays the buffers out without allocating them, so a context larger than memory can be asked.
    """
    model = Model(path, gpu_layers=gpu_layers, simulate=True)
    found = []
    for context in contexts:
        model.journal.sizes.clear()
        with Context(model, context, threads=threads):
            sizes = model.journal.take_sizes()
        found.append(
            {"context": context, "cache": sizes["cache"], "compute": sizes.get("compute", 0)}
        )
    model.lib.llama_model_free(model.handle)
    return found


def resident(field: str) -> int:
    """Return a size out of this process's status in bytes: `VmRSS` now, `VmHWM` at its highest."""
    for line in Path(f"/proc/{os.getpid()}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    return 0
