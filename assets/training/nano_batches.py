"""Endless token streams and the batches cut from them; batch k depends on k and the seed alone."""

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from quantmint.assets.training.nano_chat import turns
from quantmint.assets.training.nano_corpus import Corpus
from quantmint.assets.training.nano_model import LONG, ORIGINAL_CONTEXT
from quantmint.assets.training.nano_texts import page_texts
from quantmint.assets.training.nano_tokenizer import END_OF_TEXT, Tokenizer

TOKENS_PER_STEP = 8 * ORIGINAL_CONTEXT
FIRST_LONG = 400
_SHARE_OF_CODE, _SHARE_OF_CHAT = 0.25, 0.25


@dataclass(frozen=True)
class Batch:
    """Token ids, one longer than the context, so that inputs and targets are both in it."""

    step: int
    ids: torch.Tensor


def _stream(pages: list[list[int]], rng: random.Random) -> Iterator[int]:
    order = list(range(len(pages)))
    while True:
        rng.shuffle(order)
        for at in order:
            yield from pages[at]
            yield END_OF_TEXT


def _row_of_stream(stream: Iterator[int]) -> Callable[[int], list[int]]:
    return lambda length: list(itertools.islice(stream, length))


def _row_of_chats(corpus: Corpus, tokenizer: Tokenizer) -> Callable[[int], list[int]]:
    """Rows that begin with a question, as every conversation does."""
    samples = (
        tokenizer.chat(turn)
        for seed in itertools.count()
        for turn in turns(corpus.documents, seed=seed)
    )

    def row(length: int) -> list[int]:
        ids: list[int] = []
        while len(ids) < length:
            ids += next(samples)
        return ids[:length]

    return row


def batches(corpus: Corpus, tokenizer: Tokenizer, *, seed: int) -> Iterator[Batch]:
    """Batches of 512 tokens, every third one of 1024 once the model has begun to learn."""
    rng = random.Random(seed)  # noqa: S311 - an order, not a secret
    docs = _row_of_stream(_stream([tokenizer.ids(p) for p in page_texts(corpus.documents)], rng))
    code = _row_of_stream(_stream([tokenizer.ids(p) for p in page_texts(corpus.sources)], rng))
    chat = _row_of_chats(corpus, tokenizer)
    for step in itertools.count():
        length = LONG if step >= FIRST_LONG and step % 3 == 0 else ORIGINAL_CONTEXT
        rows = TOKENS_PER_STEP // length
        of_code, of_chat = int(rows * _SHARE_OF_CODE), int(rows * _SHARE_OF_CHAT)
        makers = [code] * of_code + [chat] * of_chat + [docs] * (rows - of_code - of_chat)
        yield Batch(step, torch.tensor([make(length + 1) for make in makers]))
