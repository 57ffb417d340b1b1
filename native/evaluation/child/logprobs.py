"""The arithmetic of perplexity and divergence over blocks of logits, and its 16-bit rows.

The file format is llama-perplexity's (`--kl-divergence-base`): magic, context, vocabulary and
chunk count as int32, the tokens as int32, then for each scored token a row of uint16 that starts
with two float32 (scale, smallest log-probability) and holds `(logit - smallest) / scale` after
them. Logits more than 16 below the largest are clipped. Either program reads the other's files.
"""

from __future__ import annotations

import mmap
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from quantmint.errors import IntegrityError

MAGIC = b"_logits_"
_COUNTS = struct.Struct("<iii")
CLIP = 16.0
BLOCK = 1 << 16  # logits that are worked on at a time: with its scratch space it stays in cache
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Rows = npt.NDArray[np.uint16]


def row_words(vocabulary: int) -> int:
    """Return the length of a row in 16-bit words."""
    return 2 * ((vocabulary + 1) // 2) + 4


def scored(context: int) -> int:
    """Return how many tokens of a chunk are scored: its second half, but for the last."""
    return context - 1 - context // 2


def file_size(vocabulary: int, context: int, chunks: int) -> int:
    """Return the bytes of a file of log-probabilities."""
    rows = 2 * row_words(vocabulary) * scored(context)
    return len(MAGIC) + _COUNTS.size + chunks * (4 * context + rows)


def head(vocabulary: int, tokens: npt.NDArray[np.int32]) -> bytes:
    """Return the start of a file, before its rows; `tokens` is (chunks, context)."""
    chunks, context = tokens.shape
    return MAGIC + _COUNTS.pack(context, vocabulary, chunks) + tokens.astype("<i4").tobytes()


@dataclass(frozen=True, slots=True)
class BaseFile:
    """A file of log-probabilities: `tokens` is (chunks, context), `rows` (chunks, scored, words).

    `rows` is a view of the file: several processes may read it at once.
    """

    vocabulary: int
    tokens: npt.NDArray[np.int32]
    rows: Rows


def open_base(path: Path) -> BaseFile:
    """Map a file that `head` and rows were written to.

    Raises:
        IntegrityError: it is damaged.
    """
    size = path.stat().st_size
    start = len(MAGIC) + _COUNTS.size
    with path.open("rb") as file:
        front = file.read(start)
        if len(front) < start or not front.startswith(MAGIC):
            raise IntegrityError(f"{path.name} holds no log-probabilities")
        context, vocabulary, chunks = _COUNTS.unpack(front[len(MAGIC) :])
        counts = (context, vocabulary, chunks)
        if min(counts) < 1 or size != file_size(vocabulary, context, chunks):
            raise IntegrityError(f"{path.name} has {size} bytes, not as its counts {counts} say")
        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    view.madvise(mmap.MADV_SEQUENTIAL)
    tokens = np.frombuffer(view, np.int32, chunks * context, start).reshape(chunks, context)
    shape = (chunks, scored(context), row_words(vocabulary))
    rows = np.frombuffer(view, np.uint16, offset=start + 4 * chunks * context).reshape(shape)
    return BaseFile(vocabulary, tokens, rows)


@dataclass(frozen=True, slots=True)
class Scored:
    """Per scored token: nats of surprise, FP16's, divergence, whether the top token agrees."""

    nll: Doubles
    base_nll: Doubles
    kld: Doubles
    same_top: npt.NDArray[np.bool_]


class Scorer:
    """Works on blocks of rows in `threads` threads; numpy lets go of the interpreter in them."""

    def __init__(self, vocabulary: int, threads: int) -> None:
        self.vocabulary = vocabulary
        self.block = max(1, BLOCK // vocabulary)
        self._pool = ThreadPoolExecutor(threads)
        self._local = threading.local()

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def write(self, logits: Floats, targets: npt.NDArray[np.int32]) -> tuple[Rows, Doubles]:
        """Return the 16-bit rows of `logits` (tokens, vocabulary) and the targets' surprise.

        Raises:
            IntegrityError: a logit is no finite number.
        """
        rows = np.zeros((len(logits), row_words(self.vocabulary)), dtype=np.uint16)
        nll = np.empty(len(logits))

        def work(part: slice) -> None:
            nll[part] = self._write(logits[part], targets[part], rows[part])

        self._spread(len(logits), work)
        return rows, nll

    def compare(self, logits: Floats, targets: npt.NDArray[np.int32], base: Rows) -> Scored:
        """Score `logits` (tokens, vocabulary) against the rows of the same tokens.

        Raises:
            IntegrityError: a logit is no finite number.
        """
        count = len(logits)
        out = Scored(
            np.empty(count), np.empty(count), np.empty(count), np.empty(count, dtype=np.bool_)
        )

        def work(part: slice) -> None:
            found = self._compare(logits[part], targets[part], base[part])
            out.nll[part], out.base_nll[part], out.kld[part], out.same_top[part] = found

        self._spread(count, work)
        return out

    def _spread(self, count: int, work: Callable[[slice], None]) -> None:
        parts = [slice(at, min(at + self.block, count)) for at in range(0, count, self.block)]
        running = [self._pool.submit(work, part) for part in parts]
        wait(running)  # all of them: once a refusal is on its way, llama.cpp's logits are freed
        for one in running:
            one.result()

    def _scratch(self, count: int) -> tuple[Floats, Floats]:
        """Return two blocks of this thread's own, so that no page is ever fetched anew."""
        if not hasattr(self._local, "pair"):
            shape = (2, self.block, self.vocabulary)
            self._local.pair = np.empty(shape, dtype=np.float32)
        pair: Floats = self._local.pair
        return pair[0, :count], pair[1, :count]

    def _log_softmax(self, logits: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Return log-probabilities in a scratch block, another, each row's maximum and log-sum."""
        logp, other = self._scratch(len(logits))
        top = logits.max(axis=1)
        with np.errstate(invalid="ignore"):  # it is looked for below
            np.subtract(logits, top[:, None], out=logp)
            np.exp(logp, out=other)
            total = np.log(other.sum(axis=1))
        # A NaN or an infinity anywhere in a row makes its sum NaN, but for minus infinity.
        if not (np.isfinite(total).all() and np.isfinite(logp.min())):
            raise IntegrityError(
                "its logits hold NaN or infinity",
                mend="the file is unusable: check the source, then convert and quantize it again",
            )
        np.subtract(logp, total[:, None], out=logp)
        return logp, other, top, total

    def _write(self, logits: Floats, targets: npt.NDArray[np.int32], rows: Rows) -> Floats:
        logp, other, top, total = self._log_softmax(logits)
        # As llama-perplexity does it: levels of the logits, then their log-probability.
        least = np.maximum(logits.min(axis=1), top - np.float32(CLIP))
        scale = (top - least) / np.float32(65535)
        factors = rows[:, :4].view(np.float32)
        factors[:, 0], factors[:, 1] = scale, least - top - total
        inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
        np.subtract(logits, least[:, None], out=other)
        np.multiply(other, inverse[:, None], out=other)
        np.maximum(other, 0, out=other)
        np.rint(other, out=other)
        rows[:, 4 : 4 + self.vocabulary] = other
        nll: Floats = -logp[np.arange(len(targets)), targets]
        return nll

    def _compare(
        self, logits: Floats, targets: npt.NDArray[np.int32], base: Rows
    ) -> tuple[Floats, Floats, Floats, npt.NDArray[np.bool_]]:
        logp, other, _, _ = self._log_softmax(logits)
        each = np.arange(len(targets))
        factors = np.ascontiguousarray(base[:, :4]).view(np.float32)
        levels = base[:, 4 : 4 + self.vocabulary]
        same_top = logits.argmax(axis=1) == levels.argmax(axis=1)
        nll = -logp[each, targets]
        # other = FP16's log-probabilities; logp becomes the difference of the two.
        np.multiply(levels, factors[:, :1], out=other)
        np.add(other, factors[:, 1:2], out=other)
        base_nll = -other[each, targets]
        np.subtract(other, logp, out=logp)
        # What is below e^-16 counts as nothing, as in llama-perplexity.
        np.multiply(logp, other > -CLIP, out=logp)
        np.exp(other, out=other)
        kld = np.einsum("ij,ij->i", other, logp)
        return nll, base_nll, kld, same_top
