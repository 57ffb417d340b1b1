"""The arithmetic of the evaluation engine, apart from any model."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from quantmint.assets.sources.local import embedded_folder
from quantmint.errors import BugError, IntegrityError, UserError
from quantmint.native.evaluation.agreement import compare_logits
from quantmint.native.evaluation.child.logprobs import (
    Scorer,
    file_size,
    head,
    open_base,
    row_words,
    scored,
)
from quantmint.native.evaluation.child.talk import loops, repetition
from quantmint.native.evaluation.facts import default_contexts, predict_memory, rope_factors
from quantmint.native.evaluation.results import Sameness, Scores
from quantmint.native.evaluation.statistics import compare_choices, divergence, mcnemar, perplexity
from quantmint.native.evaluation.tasks import load_task
from quantmint.registry.gguf import Gguf, Tensor
from quantmint.registry.gguf_types import TENSOR_TYPES

VOCABULARY = 333  # odd, so that rows are padded
RNG = np.random.default_rng(5)
F32 = next(kind for kind in TENSOR_TYPES.values() if kind.name == "F32")


def logits(tokens: int, spread: float = 1.5) -> np.ndarray:
    return (RNG.standard_normal((tokens, VOCABULARY)) * spread).astype(np.float32)


def log_softmax(values: np.ndarray) -> np.ndarray:
    wide = values.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))


@pytest.fixture
def scorer() -> Scorer:
    return Scorer(VOCABULARY, 2)


def test_scores_are_those_of_float64(scorer: Scorer) -> None:
    base, other = logits(700), logits(700)
    other = (base + 0.1 * other).astype(np.float32)
    targets = RNG.integers(0, VOCABULARY, 700).astype(np.int32)
    rows, nll = scorer.write(base, targets)
    found = scorer.compare(other, targets, rows)
    p, q = log_softmax(base), log_softmax(other)
    each = np.arange(700)
    assert np.allclose(nll, -p[each, targets], atol=1e-5)
    assert np.allclose(found.nll, -q[each, targets], atol=1e-5)
    assert np.allclose(found.base_nll, -p[each, targets], atol=2e-4)  # 16 bits of at most 16 nats
    assert np.allclose(found.kld, (np.exp(p) * (p - q)).sum(axis=1), atol=2e-4)
    assert np.array_equal(found.same_top, base.argmax(axis=1) == other.argmax(axis=1))
    assert not found.same_top.all()


def test_rows_clip_at_sixteen_nats(scorer: Scorer) -> None:
    values = logits(3, spread=100.0)
    rows, _ = scorer.write(values, np.zeros(3, dtype=np.int32))
    scale = np.ascontiguousarray(rows[:, :4]).view(np.float32)[:, 0]
    assert np.allclose(scale * 65535, 16)
    assert (rows[:, 4 : 4 + VOCABULARY].max(axis=1) == 65535).all()
    far = values < values.max(axis=1, keepdims=True) - 16
    assert far.any() and (rows[:, 4 : 4 + VOCABULARY][far] == 0).all()
    # What was clipped counts as nothing, however unlikely the other model finds it.
    base = np.zeros((1, VOCABULARY), np.float32)
    base[0, 1] = -50
    clipped, _ = scorer.write(base, np.zeros(1, dtype=np.int32))
    base[0, 1] = -1e7
    assert scorer.compare(base, np.zeros(1, dtype=np.int32), clipped).kld[0] < 1e-5
    flat, _ = scorer.write(np.ones((2, VOCABULARY), np.float32), np.zeros(2, dtype=np.int32))
    same = scorer.compare(np.ones((2, VOCABULARY), np.float32), np.zeros(2, dtype=np.int32), flat)
    assert np.allclose(same.base_nll, math.log(VOCABULARY), atol=1e-5)
    assert np.allclose(same.kld, 0, atol=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("row", [0, 699])
def test_one_bad_logit_anywhere_is_refused(scorer: Scorer, bad: float, row: int) -> None:
    values = logits(700)
    rows, _ = scorer.write(values, np.zeros(700, dtype=np.int32))
    values[row, 17] = bad
    with pytest.raises(IntegrityError, match="NaN or infinity"):
        scorer.compare(values, np.zeros(700, dtype=np.int32), rows)
    with pytest.raises(IntegrityError, match="NaN or infinity"):
        scorer.write(values, np.zeros(700, dtype=np.int32))


def test_a_file_of_log_probabilities_is_read_back_or_refused(
    scorer: Scorer, tmp_path: Path
) -> None:
    tokens = RNG.integers(0, VOCABULARY, (2, 64)).astype(np.int32)
    rows, _ = scorer.write(logits(2 * scored(64)), np.zeros(2 * scored(64), dtype=np.int32))
    data = head(VOCABULARY, tokens) + rows.tobytes()
    path = tmp_path / "base"
    path.write_bytes(data)
    assert len(data) == file_size(VOCABULARY, 64, 2)
    found = open_base(path)
    assert np.array_equal(found.tokens, tokens)
    assert np.array_equal(found.rows.reshape(-1, row_words(VOCABULARY)), rows)
    for damaged in (b"", data[:10], data[:-1], data + b"\0", b"_LOGITS_" + data[8:]):
        path.write_bytes(damaged)
        with pytest.raises(IntegrityError):
            open_base(path)


def test_equal_models_do_not_diverge(scorer: Scorer) -> None:
    base = logits(500)
    targets = RNG.integers(0, VOCABULARY, 500).astype(np.int32)
    rows, nll = scorer.write(base, targets)
    found = divergence(scorer.compare(base, targets, rows), context=8, chunks=1)
    assert found.tokens == 500
    assert found.top1 == 1.0
    assert abs(found.kld_mean) < 1e-6
    assert found.ppl_ratio == pytest.approx(1.0, abs=1e-5)
    assert (found.ppl, found.ppl_error) == pytest.approx(perplexity(nll))


def test_mcnemar_is_the_binomial_tail() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(0, 6) == mcnemar(6, 0) == pytest.approx(2 / 64)
    assert mcnemar(1, 7) == pytest.approx(2 * (1 + 8) / 256)


def test_answers_are_paired_item_by_item() -> None:
    right = (0,) * 100
    base = Scores("t", (0,) * 80 + (1,) * 20, right)
    worse = Scores("t", (1,) * 30 + (0,) * 55 + (1,) * 15, right)
    found = compare_choices(base, worse)
    assert (found.correct, found.base_correct) == (55, 80)
    assert (found.gained, found.lost) == (5, 30)
    assert found.difference == pytest.approx(-0.25)
    assert -0.37 < found.low < -0.30 < -0.20 < found.high < -0.13
    assert found.p_value < 1e-4
    assert compare_choices(base, worse) == found
    with pytest.raises(BugError):
        compare_choices(base, replace(worse, right=(1,) * 100))


def test_a_loop_is_told_from_a_text_that_repeats_a_word() -> None:
    assert loops([1, 2, 3] + [7, 8] * 6)
    assert loops([5] * 12)
    assert not loops([5] * 11)
    assert not loops([7, 8] * 6 + [1, 2, 3])
    assert not loops(list(range(40)))
    assert repetition(list(range(40))) == 0.0
    assert repetition([1, 2, 3]) == 0.0
    assert repetition([1, 2, 3, 4] * 10) == pytest.approx(1 - 4 / 37)


def test_sameness_looks_at_runs_and_at_threads() -> None:
    steady = Sameness(digests=((1, ("a", "a")), (2, ("b", "b"))))
    assert steady.across_runs and not steady.across_threads
    assert not Sameness(digests=((1, ("a", "b")),)).across_runs
    assert Sameness(digests=((1, ("a", "a")), (2, ("a",)))).across_threads


def header(original: int | None, trained: int) -> Gguf:
    values = {
        "general.architecture": "phi3", "phi3.context_length": trained,
        "phi3.embedding_length": 3072, "phi3.block_count": 32, "phi3.feed_forward_length": 8192,
        "phi3.attention.head_count": 32, "phi3.attention.head_count_kv": [8, 8],
    }  # fmt: skip
    tensors = [Tensor("token_embd.weight", F32, (3072, 32064), 0, 4 * 3072 * 32064)]
    if original is not None:
        values["phi3.rope.scaling.original_context_length"] = original
        tensors.append(Tensor("rope_factors_long.weight", F32, (48,), 0, 192))
    return Gguf(3, values, tuple(tensors), 32, 0, 0)


def test_contexts_lie_on_both_sides_of_the_switch_as_memory_allows() -> None:
    phi = header(4096, 131072)
    assert default_contexts(phi, 1 << 40) == (4096, 8192)
    assert [rope_factors(phi, c) for c in (512, 4096, 4097, 8192)] == [
        "short", "short", "long", "long",
    ]  # fmt: skip
    narrow = predict_memory(phi, 8192).total - 1
    assert default_contexts(phi, narrow) == (4096,)
    assert default_contexts(phi, predict_memory(phi, 4096).total - 1) == (2048,)
    odd = header(4096, 6000)
    assert default_contexts(odd, 1 << 40) == (4096, 6000)
    assert default_contexts(odd, predict_memory(odd, 6000).total - 1) == (4096,)
    assert default_contexts(header(4096, 4096), 1 << 40) == (4096,)
    assert default_contexts(header(None, 131072), 1 << 40) == (2048,)
    assert default_contexts(header(None, 512), 1 << 40) == (512,)
    assert rope_factors(header(None, 512), 100_000) == "plain"


def test_the_cache_counts_layers_heads_and_tokens() -> None:
    found = predict_memory(header(None, 131072), 4096)
    assert found.cache == 32 * 8 * (96 + 96) * 2 * 4096
    assert found.weights == 4 * 3072 * 32064
    assert found.total == found.weights + found.cache + found.compute


def test_logits_of_other_shapes_and_pickles_are_refused(tmp_path: Path) -> None:
    one, two, bad = (tmp_path / name for name in ("one.npy", "two.npy", "bad.npy"))
    values = logits(4)
    np.save(one, values)
    np.save(two, values[:3])
    with pytest.raises(IntegrityError, match="shape"):
        compare_logits(one, two, kernel="x64")
    np.save(bad, np.array([{}], dtype=object), allow_pickle=True)
    for content in (bad.read_bytes(), b"", b"\x93NUMPY garbage"):
        bad.write_bytes(content)
        with pytest.raises(IntegrityError, match="no logits"):
            compare_logits(one, bad, kernel="x64")
    values[2, 5] = math.nan
    np.save(two, values)
    found = compare_logits(one, two, kernel="x64")
    assert not found.finite and found.nmse == math.inf


def test_the_bundled_tasks_are_well_formed() -> None:
    tasks = [load_task(path) for path in sorted(embedded_folder("tasks").glob("*.yaml"))]
    assert [task.name for task in tasks] == ["agreement", "plausible-words", "python-facts"]
    assert sum(len(task.items) for task in tasks) >= 100
    for task in tasks:
        places = [item.right for item in task.items]
        # Whoever always takes one place is at chance.
        assert max(places.count(place) for place in set(places)) <= len(places) / 2


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"task": "No Name"}, "task"),
        ({"extra": 1}, "extra"),
        ({"items": []}, "items"),
        ({"items": [{"stem": "a", "right": " b", "wrong": [" b"]}]}, "twice"),
        ({"items": [{"stem": "a", "right": " b", "wrong": [" c"]}] * 3}, "twice"),
        ({"items": [{"stem": "a", "right": 1, "wrong": [" c"]}]}, "right"),
    ],
)
def test_a_malformed_task_is_refused(tmp_path: Path, change: dict[str, object], word: str) -> None:
    good = {
        "task": "mine", "about": "a", "licence": "MIT",
        "items": [{"stem": "a", "right": " b", "wrong": [" c", " d"]}],
    }  # fmt: skip
    path = tmp_path / "task.yaml"
    path.write_text(yaml.safe_dump(good))
    assert load_task(path).items[0].options == (" b", " c", " d")
    path.write_text(yaml.safe_dump(good | change))
    with pytest.raises(UserError, match=word):
        load_task(path)
    path.write_text("a: [unclosed")
    with pytest.raises(UserError, match="malformed"):
        load_task(path)
    with pytest.raises(UserError, match="there is no task"):
        load_task(tmp_path / "none.yaml")
