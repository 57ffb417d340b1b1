"""The tables of a report as words: the same ones in HTML, in Markdown and in a model card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantmint.assets.report.model import ModelReport, OnKernel, VariantRow
from quantmint.files import human_bytes

NONE = "-"


@dataclass(frozen=True, slots=True)
class Table:
    """A heading, a note in one sentence, the columns' names and the rows. Nothing is escaped."""

    title: str
    note: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def overview(report: ModelReport) -> Table:
    """Return one line per variant: size, memory, distance to FP16, gates."""
    contexts = sorted({at.context for row in report.rows for at in row.memory})
    first = f" at {report.contexts[0]} tokens" if report.contexts else ""
    return Table(
        "Variants",
        f"Distances are to the FP16 file, on the same text{first}; ± is the standard error. Memory "
        "is predicted: weights, key-value cache and compute buffers.",
        ("variant", "gates", "size", "bits/weight", *(f"memory at {_tokens(c)}" for c in contexts),
         "mean KLD", "same top token", "perplexity"),
        tuple(_overview_row(row, contexts) for row in report.rows),
    )  # fmt: skip


def _overview_row(row: VariantRow, contexts: Sequence[int]) -> tuple[str, ...]:
    memory = {at.context: human_bytes(at.total) for at in row.memory}
    at = row.divergences[0] if row.divergences else None
    return (
        row.variant,
        "withheld" if row.withheld else "passed",
        human_bytes(row.size),
        f"{row.bits_per_weight:.2f}",
        *(memory.get(context, NONE) for context in contexts),
        NONE if at is None else pm(at.kld_mean, at.kld_error, 5),
        NONE if at is None else f"{at.top1:.2%}",
        NONE if at is None else f"{100 * (at.ppl_ratio - 1):+.2f} %",
    )


def quality(report: ModelReport) -> list[Table]:
    """Return one table per context: everything that was measured against FP16 there."""
    head = ("variant", "perplexity", "ratio to FP16's", "mean KLD", "99 % KLD", "99.9 % KLD",
            "max KLD", "same top token", "RMS Δp")  # fmt: skip
    return [_quality_at(report, context, head) for context in report.contexts]


def _quality_at(report: ModelReport, context: int, head: tuple[str, ...]) -> Table:
    found = [(row, at) for row in report.rows for at in row.divergences if at.context == context]
    rows = tuple(
        (
            row.variant, pm(at.ppl, at.ppl_error, 4), pm(at.ppl_ratio, at.ppl_ratio_error, 5),
            pm(at.kld_mean, at.kld_error, 5), f"{at.kld_p99:.4f}", f"{at.kld_p999:.4f}",
            f"{at.kld_max:.4f}", f"{at.top1:.2%} ± {at.top1_error:.2%}",
            f"{at.rms_dp:.2%} ± {at.rms_dp_error:.2%}",
        )
        for row, at in found
    )  # fmt: skip
    one = found[0][1]
    rope = "" if one.rope == "plain" else f", LongRoPE's {one.rope} factors"
    base = next((b for b in report.base if b.context == context), None)
    said = NONE if base is None else pm(base.ppl, base.ppl_error, 4)
    return Table(
        f"Quality at {context} tokens",
        f"{one.chunks} chunks, {one.tokens} tokens scored{rope}; FP16's perplexity {said}. KLD is "
        "the Kullback-Leibler divergence in nats, Δp the change of the true token's probability.",
        head,
        rows,
    )


def tasks(report: ModelReport) -> Table | None:
    """Return the multiple-choice scores, paired with FP16's item by item; None without any."""
    names = list(dict.fromkeys(c.task for row in report.rows for c in row.choices))
    if not names:
        return None
    first = {c.task: c for row in reversed(report.rows) for c in row.choices}
    fp16 = ("FP16", *(f"{first[n].base_correct}/{first[n].items}" for n in names))
    rows = [fp16]
    for row in report.rows:
        by_name = {c.task: c for c in row.choices}
        cells = [
            NONE
            if name not in by_name
            else f"{by_name[name].correct}/{by_name[name].items}: "
            f"{by_name[name].difference:+.1%} [{by_name[name].low:+.1%}, {by_name[name].high:+.1%}]"
            for name in names
        ]
        rows.append((row.variant, *cells))
    return Table(
        "Tasks",
        "Items answered rightly by log-likelihood; the difference to FP16 on the same items, with "
        "its 95 % interval.",
        ("variant", *names),
        tuple(rows),
    )


def speed(report: ModelReport) -> Table | None:
    """Return speed and agreement of each variant on each kernel; None if nothing ran."""
    timed = [(row, on) for row in report.rows for on in row.kernels if on.speeds is not None]
    if not timed:
        return None
    prompts = sorted({at.tokens for _, on in timed if on.speeds for at in on.speeds.prompt})
    longest = sorted({at.tokens for _, on in timed if on.speeds for at in on.speeds.generation})
    machines = sorted({f"{on.cpu}, {on.threads} threads" for _, on in timed})
    return Table(
        "Speed",
        f"Tokens per second on {'; '.join(machines)}: the median of the repetitions, with the "
        "least and the most. NMSE is that of the logits against the reference kernel's.",
        ("variant", "kernel", *(f"prompt {n}" for n in prompts),
         *(f"generation {n}" for n in longest), "NMSE", "same top token"),
        tuple(_speed_row(row, on, prompts, longest) for row, on in timed),
    )  # fmt: skip


def _speed_row(
    row: VariantRow, on: OnKernel, prompts: Sequence[int], longest: Sequence[int]
) -> tuple[str, ...]:
    assert on.speeds is not None
    said = [
        {at.tokens: f"{at.median:.0f} [{at.low:.0f}, {at.high:.0f}]" for at in speeds}
        for speeds in (on.speeds.prompt, on.speeds.generation)
    ]
    near = on.agreement
    return (
        row.variant,
        on.kernel,
        *(said[0].get(n, NONE) for n in prompts),
        *(said[1].get(n, NONE) for n in longest),
        NONE if near is None else f"{near.nmse:.1e}",
        NONE if near is None else f"{near.top1:.1%}",
    )


def provenance(report: ModelReport) -> list[tuple[str, str]]:
    """Return what it all was made of, as names and values."""
    about = report.about
    found = [
        ("source", about.source),
        ("source commit", about.commit),
        ("source sha256", about.source_sha256),
        ("FP16 file sha256", report.digests["fp16"]),
        ("FP16 file size", human_bytes(about.fp16_size)),
        ("llama.cpp commit", about.llama_cpp),
        ("llama.cpp release", about.llama_cpp_release),
        ("quality measured on", f"kernel {about.kernel}"),
        ("assay text sha256", report.digests["text"]),
        ("calibration text sha256", about.calibration or "none was used"),
        ("importance matrix sha256", about.imatrix or "none was used"),
        ("date", about.date),
    ]
    bundles = {on.kernel: on.digest for row in report.rows for on in row.kernels}
    return found + [(f"kernel {name} sha256", digest) for name, digest in bundles.items()]


def reasons(report: ModelReport) -> list[tuple[str, str]]:
    """Return why variants are withheld, or not to be used on one kernel: (which, reason)."""
    found = [(row.variant, reason) for row in report.rows for reason in row.withheld]
    for row in report.rows:
        for on in row.kernels:
            only_here = [reason for reason in on.withheld if reason not in row.withheld]
            found += [(f"{row.variant} on {on.kernel}", reason) for reason in only_here]
    return found


def pm(value: float, error: float, digits: int) -> str:
    """Return a value with its standard error."""
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def _tokens(count: int) -> str:
    return f"{count // 1024}k" if count % 1024 == 0 else str(count)
