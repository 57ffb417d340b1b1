"""Running llama-imatrix so that a killed run goes on, and gives the bytes of one that was not.

The tool's own periodic saves can't be gone on from: they are written in the middle of a chunk,
when its first tensor is counted and the others are not. So the text is read in segments, one
process each. Between them stand whole files with raw sums; each process adds to them in the same
order as one long run would, and the sums are equal to the last bit.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from quantmint.errors import BuildError, IntegrityError
from quantmint.files import temporary_name, write_whole
from quantmint.native.build import Bundle
from quantmint.native.tools import PATIENT, model_limits
from quantmint.process import Command, failure, run
from quantmint.registry import gguf

# One segment of the usual 512 tokens costs a few times what loading the model does.
SEGMENT_TOKENS: Final = 16 * 512
LARGEST_BATCH: Final = 2048
NEVER: Final = "1000000000"
SUMS: Final = ".in_sum2"
COUNTS: Final = ".counts"
_TOKENS: Final = re.compile(r"Total number of tokens: (\d+)")
_ALIGNMENT: Final = 32
_TRIES: Final = 4
_SILENT: Final = re.compile(r"\S+ failed with exit code 1\b")
# A line of its log at the level of errors: `0.00.149.553 E ...`.
_REASON: Final = re.compile(r"^ *\| [\d.]+ E ", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Collecting:
    """One importance matrix: `text` is a plain file name inside `folder`, where states are kept.

    `chunks` and `context` (in tokens) say how much of the text is read.
    """

    model: Path
    folder: Path
    text: str
    chunks: int
    context: int
    threads: int
    gpu_layers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """What a matrix file says: how many chunks it saw, how many tensors it has data for, and for

    which of them some experts (their number) never saw a token.
    """

    chunks: int
    context: int
    entries: int
    partial: dict[str, int]


def count_tokens(bundle: Bundle, job: Collecting, *, log: Path) -> int:
    """Return how many tokens the whole text has for this model, BOS counted as llama-imatrix does.

    Raises:
        BuildError: the vocabulary does not load.
    """
    command = Command(
        argv=[
            bundle.tool("llama-tokenize"), "--model", job.model, "--file", job.text,
            "--no-escape", "--no-parse-special", "--ids", "--show-count", "--offline",
        ],
        cwd=job.folder,
        limits=model_limits(job.model, seconds=3600),
        log=log,
    )  # fmt: skip
    finished = run(command)
    found = _TOKENS.findall(finished.stdout)
    if not found:
        raise failure(command, finished, "told no number of tokens")
    return int(found[-1])


def segments(chunks: int, context: int, tokens: int) -> list[tuple[int, int]]:
    """Return `(first chunk, how many)` of each run of the tool, for a text of that many tokens.

    A run must have more than two chunks of text before it, or the tool refuses: the last segment
    takes up what would be too short.
    """
    total = min(chunks, tokens // context)
    step = max(1, SEGMENT_TOKENS // context)
    starts = [at for at in range(0, total, step) if at == 0 or (at + 2) * context < tokens]
    return [
        (at, end - at) for at, end in zip(starts, [*starts[1:], total], strict=True) if end > at
    ]


def collect(
    bundle: Bundle, job: Collecting, *, tokens: int, report: Callable[[str], None], log: Path
) -> Path:
    """Make the matrix, going on from the last whole state in the folder; return its file.

    Raises:
        BuildError: llama-imatrix failed.
        IntegrityError: activations are not finite, or it wrote something else than was asked for.
    """
    plan = segments(job.chunks, job.context, tokens)
    done = [_state(job, start + count) for start, count in plan]
    first = next((at for at in range(len(plan), 0, -1) if _usable(done[at - 1], job)), 0)
    if first:
        report(f"importance matrix: {sum(n for _, n in plan[:first])} chunks were read before")
    for at in range(first, len(plan)):
        start, count = plan[at]
        previous = done[at - 1] if at else None
        _segment(bundle, job, start, count, previous, log)
        if previous is not None:
            previous.unlink(missing_ok=True)
        report(f"importance matrix: {start + count} of {sum(n for _, n in plan)} chunks")
    return done[-1]


def inspect(path: Path) -> Matrix:
    """Read a matrix file through the strict gate, and look at every number in it.

    Raises:
        IntegrityError: it is no importance matrix, or holds a number that is not finite.
    """
    import numpy as np

    header = gguf.read(path)
    if header.values.get("general.type") != "imatrix" or not header.tensors:
        raise IntegrityError(f"{path.name} is no importance matrix")
    names = {tensor.name for tensor in header.tensors}
    entries = {name.removesuffix(SUMS) for name in names if name.endswith(SUMS)}
    if names != {name + part for name in entries for part in (SUMS, COUNTS)}:
        raise IntegrityError(f"{path.name}: its sums and counts do not pair")
    partial = {}
    for tensor in header.tensors:
        if tensor.type.name != "F32":
            raise IntegrityError(f"{path.name}: {tensor.name} is {tensor.type.name}, not F32")
        found = np.memmap(path, dtype="<f4", mode="r", offset=tensor.offset, shape=tensor.weights)
        if not (np.isfinite(found).all() and (found >= 0).all()):
            raise IntegrityError(
                f"{path.name}: {tensor.name} holds a number that is negative or not finite",
                mend="the FP16 file's activations are broken: check the source",
            )
        empty = int((found == 0).sum()) if tensor.name.endswith(COUNTS) else 0
        if empty:
            partial[tensor.name.removesuffix(COUNTS)] = empty
    return Matrix(
        chunks=int(header.values.get("imatrix.chunk_count", 0)),
        context=int(header.values.get("imatrix.chunk_size", 0)),
        entries=len(entries),
        partial=dict(sorted(partial.items())),
    )


def _state(job: Collecting, chunks: int) -> Path:
    return job.folder / f"state-{chunks:06d}.gguf"


def _usable(path: Path, job: Collecting) -> bool:
    try:
        return path.is_file() and inspect(path).context == job.context
    except IntegrityError:
        path.unlink(missing_ok=True)  # a torn state is only work to do again
        return False


def _segment(
    bundle: Bundle, job: Collecting, start: int, count: int, previous: Path | None, log: Path
) -> None:
    """Read `count` chunks from `start` on, add them to `previous`, and keep the whole."""
    part = temporary_name(job.folder / "part")
    try:
        words = _words(bundle, job, start, count, part)
        words += [] if previous is None else ["--in-file", previous.name]
        _run(
            Command(
                argv=words, cwd=job.folder, env=PATIENT, limits=model_limits(job.model), log=log
            )
        )
        data = with_one_dataset(part, job.text)
        found = inspect(part)
        if found.chunks != start + count or found.context != job.context:
            raise IntegrityError(
                f"llama-imatrix saw {found.chunks} chunks of {found.context} tokens where "
                f"{start + count} of {job.context} were asked for; its output is in {log}"
            )
        write_whole(_state(job, start + count), data)
    finally:
        part.unlink(missing_ok=True)


def _run(command: Command) -> None:
    """Run the tool; again where it fails without a reason.

    Its reasons are written by a thread of their own, and its `exit(1)` does not wait for it.
    """
    for tries_left in reversed(range(_TRIES)):
        try:
            run(command)
        except BuildError as error:
            if "non-finite" in error.what:
                raise IntegrityError(
                    f"the FP16 file's activations are not finite\n{error.what}",
                    mend="the converted model is broken: check the source, then build again",
                ) from error
            is_silent = _SILENT.match(error.what) and not _REASON.search(error.what)
            if not is_silent or not tries_left:
                raise
        else:
            return


def _words(bundle: Bundle, job: Collecting, start: int, count: int, part: Path) -> list[str | Path]:
    """Return the command line of one segment, paths in it relative: they come into the bytes.

    A batch is one chunk, so that the logits, which the tool computes anyway, stay small.
    """
    return [
        bundle.tool("llama-imatrix"), "--model", job.model, "--binary-file", job.text,
        "--output-file", part.name, "--output-format", "gguf", "--output-frequency", NEVER,
        "--no-ppl", "--ctx-size", str(job.context), "--fit", "off", "--offline",
        "--batch-size", str(min(job.context, LARGEST_BATCH)), "--threads", str(job.threads),
        "--gpu-layers", str(job.gpu_layers), "--chunk", str(start), "--chunks", str(count),
    ]  # fmt: skip


def with_one_dataset(path: Path, name: str) -> bytes:
    """Return the bytes of a matrix file with the text named once: each segment names it again.

    Raises:
        IntegrityError: the file's header is not the one that llama-imatrix writes.
    """
    header = gguf.read(path)
    data = path.read_bytes()
    datasets = tuple(header.values.get("imatrix.datasets", ()))
    chunks, context = (header.values.get(f"imatrix.chunk_{part}") for part in ("count", "size"))
    old = _head(len(header.tensors), datasets, chunks, context)
    if set(datasets) != {name} or not data.startswith(old) or header.alignment != _ALIGNMENT:
        raise IntegrityError(f"{path.name} has another header than llama-imatrix writes")
    rows = sum(24 + len(t.name) + 8 * len(t.shape) for t in header.tensors)
    head = _head(len(header.tensors), (name,), chunks, context) + data[len(old) :][:rows]
    return head + bytes(-len(head) % _ALIGNMENT) + data[header.data_offset :]


def _head(tensors: int, datasets: Sequence[str], chunks: object, context: object) -> bytes:
    """Return the start of a matrix file, up to its table of tensors (GGUF 3, four values)."""
    kind, number, text, array = "<I", 4, 8, 9
    parts = [b"GGUF", struct.pack("<IQQ", 3, tensors, 4)]
    parts += [_text("general.type"), struct.pack(kind, text), _text("imatrix")]
    parts += [_text("imatrix.datasets"), struct.pack("<IIQ", array, text, len(datasets))]
    parts += [_text(name) for name in datasets]
    for key, value in (("imatrix.chunk_count", chunks), ("imatrix.chunk_size", context)):
        parts += [_text(key), struct.pack("<II", number, value)]
    return b"".join(parts)


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data
