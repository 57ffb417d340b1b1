"""Reading a text in chunks exactly as llama-perplexity does, and scoring each chunk's second half.

Same chunks, same batches, same place of BOS: so that the numbers are that tool's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quantmint.errors import IntegrityError, UserError
from quantmint.files import (
    full_disk_explained,
    human_bytes,
    out_of_space,
    sweep_temporaries,
    temporary_name,
)
from quantmint.native.evaluation.child import logprobs
from quantmint.native.evaluation.child.llama import BATCH, Context, Logits, Model
from quantmint.native.evaluation.child.logprobs import BaseFile, Scored, Scorer
from quantmint.native.evaluation.statistics import divergence, perplexity

Tokens = npt.NDArray[np.int32]


def base_path(folder: Path, context: int) -> Path:
    """Return where FP16's log-probabilities at a context lie."""
    return folder / f"base-{context}.logprobs"


def write_bases(model: Model, request: dict[str, Any], threads: int) -> list[dict[str, Any]]:
    """Write one file of log-probabilities for each reading; return FP16's own perplexities.

    Raises:
        UserError: the text is too short, or the budget or the disk too small.
        IntegrityError: a logit is no finite number.
    """
    text = Path(request["text"]).read_bytes().removesuffix(b"\n")  # as llama.cpp reads a file
    tokens = model.tokenize(text, special=True, parse=False)
    folder, readings = Path(request["folder"]), request["readings"]
    sweep_temporaries(folder)  # what killed writers left counts against no budget
    share = request["budget"] // max(1, len(readings))
    found = []
    for reading in readings:
        context = int(reading["context"])
        chunks = _affordable(model, len(tokens), reading, share)
        part = tokens[: chunks * context].reshape(chunks, context)
        needed = logprobs.file_size(model.n_vocab, context, chunks)
        with full_disk_explained(folder):
            nll = _write(model, part, base_path(folder, context), threads, needed)
        value, error = perplexity(nll)
        found.append({
            "context": context, "chunks": chunks, "wanted": int(reading["chunks"]),
            "tokens": len(nll), "ppl": value, "ppl_error": error,
        })  # fmt: skip
    return found


def _affordable(model: Model, tokens: int, reading: dict[str, Any], share: int) -> int:
    context, wanted = int(reading["context"]), int(reading["chunks"])
    if tokens < 2 * context:
        raise UserError(
            f"the text has {tokens} tokens; a context of {context} needs {2 * context} or more",
            mend="use a longer text or a shorter context (assay: {text: ..., contexts: [...]})",
        )
    each = logprobs.file_size(model.n_vocab, context, 1)
    chunks = min(wanted, tokens // context, share // each)
    if chunks < 1:
        raise UserError(
            f"log-probabilities of one chunk of {context} tokens take {human_bytes(each)}, "
            f"{human_bytes(share)} are allowed",
            mend="allow more disk for them, or use a shorter context",
        )
    return chunks


def _write(model: Model, tokens: Tokens, path: Path, threads: int, needed: int) -> Any:  # noqa: ANN401
    import os
    import shutil

    if shutil.disk_usage(path.parent).free < needed:
        raise out_of_space(path.parent, needed)
    staged = temporary_name(path)
    scorer, surprises = Scorer(model.n_vocab, threads), []
    try:
        with staged.open("xb") as file:
            file.write(logprobs.head(model.n_vocab, tokens))
            for chunk, at, logits in read_chunks(model, tokens, threads):
                with _placed(tokens.shape[1], chunk, at):
                    targets = tokens[chunk, at + 1 : at + 1 + len(logits)]
                    rows, nll = scorer.write(logits, targets)
                file.write(rows.data)
                surprises.append(nll)
            # No fsync: the size tells a part from a whole, and a lost file is written anew.
        os.rename(staged, path)  # noqa: PTH104
    finally:
        scorer.close()
        staged.unlink(missing_ok=True)
    return np.concatenate(surprises)


def compare_bases(model: Model, folder: Path, threads: int) -> list[dict[str, Any]]:
    """Score the model against every file of log-probabilities in `folder`.

    Raises:
        IntegrityError: a logit is no finite number, or the vocabularies differ.
        UserError: there is no such file.
    """
    found = []
    paths = {int(p.stem.removeprefix("base-")): p for p in folder.glob("base-*.logprobs")}
    if not paths:
        raise UserError(
            f"{folder} holds no log-probabilities of the FP16 file",
            mend="run the command again: they are written before a variant is measured",
        )
    for context in sorted(paths):
        base = logprobs.open_base(paths[context])
        if base.vocabulary != model.n_vocab:
            raise IntegrityError(
                f"its vocabulary has {model.n_vocab} tokens, the FP16 file's {base.vocabulary}",
                mend="it was not made from that FP16 file: build the variant again",
            )
        started = time.monotonic()
        scores = _compare(model, base, threads)
        values = divergence(scores, context=context, chunks=len(base.tokens))
        found.append({"divergence": asdict(values), "seconds": time.monotonic() - started})
    return found


def _compare(model: Model, base: BaseFile, threads: int) -> Scored:
    scorer, parts = Scorer(model.n_vocab, threads), []
    context = base.tokens.shape[1]
    first = context // 2
    try:
        for chunk, at, logits in read_chunks(model, base.tokens, threads):
            with _placed(context, chunk, at):
                rows = base.rows[chunk, at - first : at - first + len(logits)]
                targets = base.tokens[chunk, at + 1 : at + 1 + len(logits)]
                parts.append(scorer.compare(logits, targets, rows))
    finally:
        scorer.close()
    return Scored(
        np.concatenate([p.nll for p in parts]),
        np.concatenate([p.base_nll for p in parts]),
        np.concatenate([p.kld for p in parts]),
        np.concatenate([p.same_top for p in parts]),
    )


class _placed:  # noqa: N801
    """Says in a refusal at which context, chunk and position it was."""

    def __init__(self, context: int, chunk: int, at: int) -> None:
        self.where = f"context {context}, chunk {chunk + 1}, from position {at} on"

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, IntegrityError):
            raise IntegrityError(f"{error.what} ({self.where})", mend=error.mend) from None


def read_chunks(model: Model, tokens: Tokens, threads: int) -> Iterator[tuple[int, int, Logits]]:
    """Decode `tokens` (chunks, context) and give the scored logits as they come.

    Each is (chunk, position of the first row in its chunk, logits), ordered by chunk and position;
    row i predicts the token after that position + i. The rows hold until the next is asked for.
    """
    chunks, context = tokens.shape
    together = max(1, BATCH // context)
    with Context(model, together * context, threads=threads, sequences=together) as reader:
        for start in range(0, chunks, together):
            group = range(start, min(start + together, chunks))
            reader.clear()
            for at in range(0, context, reader.batch_size):
                yield from _read_batch(reader, tokens, group, at)


def _read_batch(
    reader: Context, tokens: Tokens, group: range, at: int
) -> Iterator[tuple[int, int, Logits]]:
    context = tokens.shape[1]
    first = context // 2
    count = min(reader.batch_size, context - at)
    wanted = np.arange(at, at + count) >= first
    for sequence, chunk in enumerate(group):
        part = tokens[chunk, at : at + count]
        if reader.model.add_bos and at == 0:
            part = np.concatenate(([reader.model.bos], part[1:]))
        reader.add(part, at, sequences=(sequence,), wanted=wanted)
    logits = reader.decode()
    each = int(np.count_nonzero(wanted))
    begin = max(at, first)
    # The last position of a chunk predicts nothing that is known.
    useful = each - 1 if at + count == context else each
    if useful > 0:
        for index, chunk in enumerate(group):
            yield chunk, begin, logits[index * each : index * each + useful]
