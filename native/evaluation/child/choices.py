"""Multiple choice by log-likelihood: which option does the model find likeliest after the stem?

An option's score is the sum of its tokens' log-probabilities over its bytes, so that options of
different length can be compared. The stem is read once for all options of an item.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quantmint.errors import IntegrityError, UserError
from quantmint.native.evaluation.child.llama import Context, Logits, Model

ROOM = 2048
SEQUENCES = 64
TOGETHER = 512


@dataclass(frozen=True, slots=True)
class _Question:
    stem: npt.NDArray[np.int32]
    options: list[npt.NDArray[np.int32]]
    sizes: list[int]

    @property
    def tokens(self) -> int:
        return len(self.stem) + sum(len(option) for option in self.options)


def answer_tasks(model: Model, tasks: list[dict[str, Any]], threads: int) -> list[dict[str, Any]]:
    """Return the chosen option of every item of every task.

    Raises:
        UserError: an item is longer than a batch.
        IntegrityError: a logit is no finite number.
    """
    found = []
    room = min(ROOM, max(256, model.trained_context()))
    with Context(model, room, threads=threads, sequences=SEQUENCES, unified=True) as reader:
        for task in tasks:
            questions = [_question(model, item) for item in task["items"]]
            chosen: list[int] = []
            for group in _groups(questions, min(TOGETHER, room)):
                chosen += _answer(reader, group)
            right = [item["right"] for item in task["items"]]
            found.append({"task": task["name"], "chosen": chosen, "right": right})
    return found


def _question(model: Model, item: dict[str, Any]) -> _Question:
    stem = model.tokenize(item["stem"].encode(), special=True, parse=False)
    wholes = [
        model.tokenize((item["stem"] + option).encode(), special=True, parse=False)
        for option in item["options"]
    ]
    # Tokens may join across the border: what every whole shares with the stem is the stem.
    common = min(_shared(stem, whole) for whole in wholes)
    common = min(common, *(len(whole) - 1 for whole in wholes))
    if common < 1:
        raise UserError(f"the item {item['stem']!r} has nothing before its options")
    sizes = [len(option.encode()) for option in item["options"]]
    return _Question(wholes[0][:common], [whole[common:] for whole in wholes], sizes)


def _shared(one: npt.NDArray[np.int32], other: npt.NDArray[np.int32]) -> int:
    length = min(len(one), len(other))
    differ = np.flatnonzero(one[:length] != other[:length])
    return int(differ[0]) if len(differ) else length


def _groups(questions: list[_Question], room: int) -> list[list[_Question]]:
    groups: list[list[_Question]] = [[]]
    tokens = sequences = 0
    for question in questions:
        if question.tokens > room or len(question.options) > SEQUENCES:
            raise UserError(f"an item of {question.tokens} tokens is too long, {room} are allowed")
        tokens, sequences = tokens + question.tokens, sequences + len(question.options)
        if groups[-1] and (tokens > room or sequences > SEQUENCES):
            groups.append([])
            tokens, sequences = question.tokens, len(question.options)
        groups[-1].append(question)
    return groups


def _answer(reader: Context, group: list[_Question]) -> list[int]:
    """Read several questions in one batch: a sequence for each option, stems shared."""
    reader.clear()
    sequence = 0
    for question in group:
        options = range(sequence, sequence + len(question.options))
        last = np.arange(len(question.stem)) == len(question.stem) - 1
        reader.add(question.stem, 0, sequences=options, wanted=last)
        for own, option in zip(options, question.options, strict=True):
            # The last token of an option predicts nothing that counts.
            wanted = np.arange(len(option)) < len(option) - 1
            reader.add(option, len(question.stem), sequences=(own,), wanted=wanted)
        sequence += len(question.options)
    logits, row, chosen = reader.decode(), 0, []
    for question in group:
        stem_row, row = row, row + 1
        scores = []
        for option, size in zip(question.options, question.sizes, strict=True):
            rows = [stem_row, *range(row, row + len(option) - 1)]
            row += len(option) - 1
            scores.append(_likelihood(logits[rows], option) / size)
        chosen.append(int(np.argmax(scores)))
    return chosen


def _likelihood(logits: Logits, tokens: npt.NDArray[np.int32]) -> float:
    if not np.isfinite(logits).all():
        raise IntegrityError(
            "its logits hold NaN or infinity in a multiple-choice item",
            mend="the file is unusable: check the source, then convert and quantize it again",
        )
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    picked = wide[np.arange(len(tokens)), tokens]
    return float(np.sum(picked - np.log(np.exp(wide).sum(axis=1))))
