"""What a measurement says. Plain numbers, so that they can be cached, compared and published."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """How far a model's predictions are from its FP16 file's, on the same text and context.

    Each value has llama-perplexity's meaning; `_error` is the standard error of the mean.
    `context` counts tokens, `tokens` those that were scored (the second half of each chunk).
    `kld_*` are in nats; `top1` is the share of tokens with the same most likely successor;
    `rms_dp` is the root mean square of the change of the true token's probability (0 to 1).
    `rope` names the rotary factors in use: `short` or `long` for LongRoPE, else `plain`.
    """

    context: int
    chunks: int
    tokens: int
    ppl: float
    ppl_error: float
    base_ppl: float
    base_ppl_error: float
    ppl_ratio: float
    ppl_ratio_error: float
    kld_mean: float
    kld_error: float
    kld_median: float
    kld_p99: float
    kld_p999: float
    kld_max: float
    top1: float
    top1_error: float
    rms_dp: float
    rms_dp_error: float
    rope: str = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class BasePerplexity:
    """Perplexity of the FP16 file at one context, learned while its logits are written.

    `wanted` counts the chunks that were asked for: more than `chunks` where the text or the byte
    budget ended first.
    """

    context: int
    chunks: int
    wanted: int
    tokens: int
    ppl: float
    ppl_error: float
    rope: str = "plain"


@dataclass(frozen=True, slots=True)
class Scores:
    """One model's answers to a task: for each item the chosen option, and the right one."""

    task: str
    chosen: tuple[int, ...]
    right: tuple[int, ...]

    @property
    def correct(self) -> int:
        """How many items were answered rightly."""
        return sum(a == b for a, b in zip(self.chosen, self.right, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """Multiple-choice accuracy by log-likelihood, paired with FP16's answer to each item.

    `difference` is accuracy minus FP16's, `low` and `high` its 95 % interval (bootstrap over
    items); `gained` and `lost` count items whose answer became right or wrong; `p_value` is
    McNemar's exact test of the two.
    """

    task: str
    items: int
    correct: int
    base_correct: int
    difference: float
    low: float
    high: float
    gained: int
    lost: int
    p_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How close one kernel's logits are to the reference kernel's, for the same file and tokens.

    `nmse` is the mean squared difference over the mean square of the reference; `top1` the share
    of positions with the same largest logit; `finite` says that every logit is a number.
    """

    reference: str
    tokens: int
    nmse: float
    top1: float
    largest_difference: float
    finite: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Sameness:
    """Whether equal work gives equal bits: sha256 of the logits by thread count, run by run."""

    digests: tuple[tuple[int, tuple[str, ...]], ...]

    @property
    def across_runs(self) -> bool:
        """Whether each thread count gave the same logits every time."""
        return all(len(set(found)) == 1 for _, found in self.digests)

    @property
    def across_threads(self) -> bool:
        """Whether all thread counts gave the same logits."""
        return len({digest for _, found in self.digests for digest in found}) == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a model said to one prompt, greedily.

    `ended` is `stop` (by a token that ends a turn) or `length` (cut off). `repetition` is the
    share of its four-token sequences that occurred before in it; `looping` says that its end is
    one sequence again and again. `finite` says that every logit on the way was a number.
    """

    prompt: str
    rendered: str
    text: str
    ended: str
    tokens: int
    finite: bool
    repetition: float
    looping: bool

    @property
    def stopped(self) -> bool:
        """Whether the model ended its turn by itself."""
        return self.ended == "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedAt:
    """Tokens per second at one size: the median of the repetitions, with the least and most."""

    tokens: int
    repetitions: int
    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Speeds:
    """Speed of reading prompts and of generating, at each size asked for."""

    prompt: tuple[SpeedAt, ...]
    generation: tuple[SpeedAt, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """Resident memory of a process that holds a model at a context, in bytes.

    `resident` is the highest that it was after a prompt was read and a token generated, `before`
    what the process had before the model. Pages of the model file that were touched count.
    """

    context: int
    tokens: int
    resident: int
    before: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryAt:
    """Bytes that a model takes at a context length: weights, key-value cache, compute buffers."""

    context: int
    weights: int
    cache: int
    compute: int

    @property
    def total(self) -> int:
        """All three together."""
        return self.weights + self.cache + self.compute
