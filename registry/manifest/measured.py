"""Measured values of a variant. Field names and meanings are those of the evaluation's results.

Each list may be empty: what was not measured is left out, never guessed.
"""

from __future__ import annotations

from pydantic import Field

from quantmint.registry.manifest.types import (
    Count,
    KernelName,
    Line,
    NotNegative,
    Positive,
    Share,
    Signed,
)


class Divergence(Signed):
    """How far predictions are from the FP16 file's, at one context length.

    `*_error` is the standard error of the mean, `kld_*` are in nats, `top1` is the share of
    tokens with the same most likely successor, `rms_dp` the root mean square of the change of
    the true token's probability. `rope` names the rotary factors in use: `short`, `long` or
    `plain`.
    """

    context: Positive
    chunks: Positive
    tokens: Positive
    ppl: NotNegative
    ppl_error: NotNegative
    base_ppl: NotNegative
    base_ppl_error: NotNegative
    ppl_ratio: NotNegative
    ppl_ratio_error: NotNegative
    kld_mean: float
    kld_error: NotNegative
    kld_median: float
    kld_p99: float
    kld_p999: float
    kld_max: float
    top1: Share
    top1_error: NotNegative
    rms_dp: NotNegative
    rms_dp_error: NotNegative
    rope: Line = "plain"


class Choices(Signed):
    """Multiple-choice accuracy, paired with the FP16 file's answers to the same items.

    `difference` is accuracy minus FP16's with its 95 % interval from `low` to `high`; `gained`
    and `lost` count items whose answer became right or wrong; `p_value` is McNemar's.
    """

    task: Line
    items: Positive
    correct: Count
    base_correct: Count
    difference: float = Field(ge=-1, le=1)
    low: float
    high: float
    gained: Count
    lost: Count
    p_value: Share


class MemoryAt(Signed):
    """Bytes that the model takes at a context length."""

    context: Positive
    weights: Count
    cache: Count
    compute: Count

    @property
    def total(self) -> int:
        """All three together."""
        return self.weights + self.cache + self.compute


class SpeedAt(Signed):
    """Tokens per second at one size: the median of the repetitions, with the least and most."""

    tokens: Positive
    repetitions: Positive
    median: NotNegative
    low: NotNegative
    high: NotNegative


class Agreement(Signed):
    """How close a kernel's logits are to the reference kernel's, for the same file and tokens."""

    reference: KernelName
    tokens: Positive
    nmse: NotNegative
    top1: Share
    largest_difference: NotNegative
    finite: bool


class OnKernel(Signed):
    """What was measured of a variant on one kernel of one machine.

    `prompt` reads that many tokens at once, `generation` writes them one by one.
    """

    kernel: KernelName
    cpu: Line
    threads: Positive
    gpu: Line | None = None
    gpu_layers: Count = 0
    prompt: tuple[SpeedAt, ...] = Field(default=(), max_length=32)
    generation: tuple[SpeedAt, ...] = Field(default=(), max_length=32)
    agreement: Agreement | None = None


class Gate(Signed):
    """One check that the variant's exact bytes passed before they were released."""

    check: Line
    reason: Line
