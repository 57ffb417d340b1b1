"""The numbers of a card: which file for which machine, quality, speed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from quantmint.files import human_bytes
from quantmint.registry.card.escape import code, escaped, table
from quantmint.registry.manifest.measured import OnKernel, SpeedAt
from quantmint.registry.manifest.release import Manifest, Variant

NONE = "-"
USUAL = "Q4_K_M"
FULL = frozenset({"F16", "BF16", "F32"})
BUDGETS = tuple(gigabytes * 10**9 for gigabytes in (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128))


def quantized(manifest: Manifest) -> tuple[Variant, ...]:
    """Return the variants without the 16-bit file that they were made from."""
    return tuple(v for v in manifest.variants if v.variant not in FULL) or manifest.variants


def usual(manifest: Manifest) -> Variant:
    """Return the variant of the examples: Q4_K_M, else the middle one by size."""
    rows = quantized(manifest)
    named = next((row for row in rows if row.variant == USUAL), None)
    return named or sorted(rows, key=lambda row: row.file.size)[len(rows) // 2]


def pick_line(manifest: Manifest) -> str:
    """Return which file to take by the memory that is free, from the measured quality."""
    rows = [row for row in quantized(manifest) if row.memory]
    if not rows:
        return f"Take {code(usual(manifest).variant)} if in doubt."
    context = rows[0].memory[0].context
    picked = [(budget, _best(rows, budget)) for budget in BUDGETS]
    parts = []
    for name, group in groupby(picked, key=lambda pair: pair[1].variant if pair[1] else ""):
        budgets = [budget for budget, _ in group]
        last = " or more" if budgets[-1] == BUDGETS[-1] else ""
        if name:
            parts.append(f"{budgets[0] // 10**9} GB{last}: {code(name)}")
    said = " · ".join(parts)
    return f"By free memory (with {context} tokens of context): {said}."


def _best(rows: Sequence[Variant], budget: int) -> Variant | None:
    """Return the variant nearest to FP16 that fits; the larger one where nothing was measured."""
    fit = [row for row in rows if row.memory[0].total <= budget]
    return min(fit, key=lambda row: (_kld(row), -row.file.size), default=None)


def _kld(row: Variant) -> float:
    return max((at.kld_mean for at in row.divergence), default=float("inf"))


def files_table(manifest: Manifest) -> str:
    """Return one line per file: size, memory, distance to FP16."""
    contexts = _contexts(manifest)
    head = ["file", "size", "bits/weight", *(f"memory at {tokens(c)}" for c in contexts),
            "perplexity", "mean KLD", "99 % KLD", "same top token"]  # fmt: skip
    rows = [_file_row(row, contexts) for row in _by_size(manifest)]
    return table(head, rows)


def _contexts(manifest: Manifest) -> list[int]:
    """Return the contexts to tell memory at: those that the model has, or the least."""
    found = sorted({at.context for row in manifest.variants for at in row.memory})
    longest = manifest.context_length
    return [c for c in found if longest is None or c <= longest] or found[:1]


def _file_row(row: Variant, contexts: Sequence[int]) -> list[str]:
    memory = {at.context: human_bytes(at.total) for at in row.memory}
    at = row.divergence[0] if row.divergence else None
    return [
        f"[{escaped(row.file.path)}]({row.file.path})",
        human_bytes(row.file.size),
        f"{row.bits_per_weight:.2f}",
        *(memory.get(context, NONE) for context in contexts),
        NONE if at is None else f"{at.ppl:.3f} ± {at.ppl_error:.3f}",
        NONE if at is None else f"{at.kld_mean:.5f} ± {at.kld_error:.5f}",
        NONE if at is None else f"{at.kld_p99:.4f}",
        NONE if at is None else f"{at.top1:.2%}",
    ]


def quality_note(manifest: Manifest) -> str:
    """Say what the numbers of the table mean, and what FP16 itself reaches."""
    measured = [at for row in manifest.variants for at in row.divergence[:1]]
    if not measured:
        return "Quality was not measured."
    at = measured[0]
    rope = "" if at.rope == "plain" else f", LongRoPE's {escaped(at.rope)} factors"
    return (
        f"Measured on these files at {at.context} tokens of context{rope}, {at.tokens} tokens "
        f"scored; FP16's perplexity is {at.base_ppl:.3f} ± {at.base_ppl_error:.3f}. KLD is the "
        "Kullback-Leibler divergence from FP16's predictions in nats (0 is FP16), ± the "
        "standard error. Memory is predicted: weights, key-value cache and compute buffers."
    )


def more_contexts(manifest: Manifest) -> Iterator[str]:
    """Yield a heading and a table for each further context that was measured."""
    contexts = sorted({at.context for row in manifest.variants for at in row.divergence[1:]})
    for context in contexts:
        found = [(r, at) for r in _by_size(manifest) for at in r.divergence[1:]
                 if at.context == context]  # fmt: skip
        rope = found[0][1].rope
        said = "" if rope == "plain" else f" (LongRoPE's {escaped(rope)} factors)"
        yield f"### At {context} tokens{said}"
        yield table(
            ["variant", "perplexity", "to FP16's", "mean KLD", "99.9 % KLD", "same top token"],
            [
                [code(row.variant), f"{at.ppl:.3f} ± {at.ppl_error:.3f}", f"{at.ppl_ratio:.4f}",
                 f"{at.kld_mean:.5f} ± {at.kld_error:.5f}", f"{at.kld_p999:.4f}", f"{at.top1:.2%}"]
                for row, at in found
            ],
        )  # fmt: skip


def tasks_table(manifest: Manifest) -> str | None:
    """Return multiple-choice scores, paired with FP16's; None without any."""
    rows = [row for row in _by_size(manifest) if row.choices]
    if not rows:
        return None
    first = rows[0].choices
    lines = [["FP16", *(f"{c.base_correct}/{c.items}" for c in first)]]
    for row in rows:
        by_name = {c.task: c for c in row.choices}
        cells = [
            f"{c.correct}/{c.items}: {c.difference:+.1%} [{c.low:+.1%}, {c.high:+.1%}]"
            if (c := by_name.get(task.task))
            else NONE
            for task in first
        ]
        lines.append([code(row.variant), *cells])
    return table(["variant", *(escaped(c.task) for c in first)], lines)


def speed_table(manifest: Manifest) -> str | None:
    """Return tokens per second of each variant on each kernel; None if nothing was timed."""
    timed = [(row, on) for row in _by_size(manifest) for on in row.kernels
             if on.prompt or on.generation]  # fmt: skip
    if not timed:
        return None
    prompts = sorted({at.tokens for _, on in timed for at in on.prompt})
    written = sorted({at.tokens for _, on in timed for at in on.generation})
    head = ["variant", "kernel", "CPU", *(f"prompt of {n}" for n in prompts),
            *(f"{n} generated" for n in written)]  # fmt: skip
    rows = [
        [code(row.variant), code(on.kernel), _machine(on),
         *_speeds(on.prompt, prompts), *_speeds(on.generation, written)]
        for row, on in timed
    ]  # fmt: skip
    return table(head, rows)


def _machine(on: OnKernel) -> str:
    gpu = f", {escaped(on.gpu)}" if on.gpu else ""
    return f"{escaped(on.cpu)}, {on.threads} threads{gpu}"


def _speeds(found: Sequence[SpeedAt], sizes: Sequence[int]) -> list[str]:
    said = {at.tokens: f"{at.median:.0f} ({at.low:.0f} to {at.high:.0f})" for at in found}
    return [said.get(size, NONE) for size in sizes]


def tokens(count: int) -> str:
    """Return a number of tokens as people say it."""
    return f"{count // 1024}k" if count % 1024 == 0 else str(count)


def _by_size(manifest: Manifest) -> list[Variant]:
    return sorted(manifest.variants, key=lambda row: (-row.file.size, row.variant))
