"""From scores of single tokens and items to the numbers that are published, with their errors.

The formulas are llama-perplexity's, term by term, so that the numbers can be compared.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from quantmint.errors import BugError
from quantmint.native.evaluation.results import Choices, Divergence, Scores

if TYPE_CHECKING:
    from quantmint.native.evaluation.child.logprobs import Scored

Doubles = npt.NDArray[np.float64]
BOOTSTRAPS = 10_000
SEED = 20_240_423


def perplexity(nll: Doubles) -> tuple[float, float]:
    """Return perplexity and its standard error for the surprise of each token in nats."""
    mean, error = _mean(nll)
    value = math.exp(mean)
    return value, value * error


def divergence(scored: Scored, *, context: int, chunks: int) -> Divergence:
    """Return how far scores are from FP16's; quantities as in `Divergence`."""
    count = len(scored.nll)
    mean, error = _mean(scored.nll)
    base_mean, base_error = _mean(scored.base_nll)
    covariance = float(np.mean(scored.nll * scored.base_nll)) - mean * base_mean
    covariance = covariance / (count - 1) if count >= 10 else 0.0
    spread = error**2 + base_error**2 - 2 * covariance
    ratio = math.exp(mean - base_mean)
    kld, kld_error = _mean(scored.kld)
    change = (np.exp(-scored.nll) - np.exp(-scored.base_nll)) ** 2
    square, square_error = _mean(change)
    rms = math.sqrt(square)
    top1 = float(np.mean(scored.same_top))
    ordered = np.sort(scored.kld)
    return Divergence(
        context=context,
        chunks=chunks,
        tokens=count,
        ppl=math.exp(mean),
        ppl_error=math.exp(mean) * error,
        base_ppl=math.exp(base_mean),
        base_ppl_error=math.exp(base_mean) * base_error,
        ppl_ratio=ratio,
        ppl_ratio_error=ratio * math.sqrt(max(0.0, spread)),
        kld_mean=kld,
        kld_error=kld_error,
        kld_median=float(np.median(ordered)),
        kld_p99=_percentile(ordered, 0.99),
        kld_p999=_percentile(ordered, 0.999),
        kld_max=float(ordered[-1]),
        top1=top1,
        top1_error=math.sqrt(top1 * (1 - top1) / max(1, count - 1)),
        rms_dp=rms,
        rms_dp_error=0.5 / rms * square_error if rms > 0 else 0.0,
    )


def _mean(values: Doubles) -> tuple[float, float]:
    """Return the mean and its standard error; 0 where there are ten values or fewer."""
    count = len(values)
    mean = float(np.mean(values))
    variance = float(np.mean(values * values)) - mean * mean
    return mean, math.sqrt(variance / (count - 1)) if variance > 0 and count > 10 else 0.0


def _percentile(ordered: Doubles, share: float) -> float:
    """Return a percentile by linear interpolation; the rank is float32, as in llama-perplexity."""
    rank = float(np.float32(share) * np.float32(len(ordered) - 1))
    low = int(rank)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (rank - low) * (ordered[high] - ordered[low]))


def compare_choices(base: Scores, found: Scores) -> Choices:
    """Pair a model's answers with FP16's, item by item.

    The interval is the percentile bootstrap over items (10,000 draws, fixed seed), the p-value
    McNemar's exact one: twice the binomial tail of the items whose answer changed, at even odds.
    """
    if base.task != found.task or base.right != found.right:
        raise BugError(f"{found.task} was not paired with its own items: {base.task}")
    was = np.equal(base.chosen, base.right).astype(np.int64)
    now = np.equal(found.chosen, found.right).astype(np.int64)
    change, items = now - was, len(was)
    gained, lost = int(np.sum(change == 1)), int(np.sum(change == -1))
    # A draw of `items` items with replacement: only how many of them gained and lost matters.
    odds = [gained / items, lost / items, (items - gained - lost) / items]
    draws = np.random.default_rng(SEED).multinomial(items, odds, size=BOOTSTRAPS)
    low, high = np.quantile((draws[:, 0] - draws[:, 1]) / items, [0.025, 0.975])
    return Choices(
        task=found.task,
        items=items,
        correct=found.correct,
        base_correct=base.correct,
        difference=(gained - lost) / items,
        low=float(low),
        high=float(high),
        gained=gained,
        lost=lost,
        p_value=mcnemar(gained, lost),
    )


def mcnemar(gained: int, lost: int) -> float:
    """Return the exact two-sided p-value of so many changes either way."""
    changed = gained + lost
    tail = sum(math.comb(changed, k) for k in range(min(gained, lost) + 1))
    return min(1.0, float(2 * tail) / float(2**changed))
