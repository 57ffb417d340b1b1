"""The gates: measurements against bounds. Pure functions; each verdict names value and bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quantmint.assets.recipe import Gates
from quantmint.assets.verdict import Verdict
from quantmint.native.evaluation.results import Agreement, Choices, Divergence, Reply

WIDER = "use a wider variant, or set gates: {key} in the model file if this is expected"


BROKEN = "the file is unusable: compare with a wider variant, then check source and converter"


def check_chat(gates: Gates, found: Sequence[Reply], fp16: Sequence[Reply]) -> Verdict:
    """Refuse a model that has no words, loops where FP16 does not, or never ends its turn.

    One odd answer of a small model is no proof: each fault must show on more than half of the
    prompts. A model ends its turn with a stop token; a variant must do so on at least half as
    many prompts as FP16. A logit that is no number is refused at once.
    """
    count = len(found)
    broken = [reply for reply in found if not reply.finite]
    silent = [reply for reply in found if not any(letter.isalnum() for letter in reply.text)]
    loops = [r for r, base in zip(found, fp16, strict=True) if r.looping and not base.looping]
    stops, wanted = (sum(reply.stopped for reply in replies) for replies in (found, fp16))
    problems = []
    if broken:
        problems.append(f"{_asked(broken)}, its logits hold NaN or infinity: {BROKEN}")
    if gates.chat and 2 * len(silent) > count:
        problems.append(f"{_asked(silent)}, its answer has no word: {BROKEN}")
    if gates.chat and 2 * len(loops) > count:
        problems.append(f"{_asked(loops)}, it says one thing again and again, FP16 not: {BROKEN}")
    if gates.chat and 2 * stops < wanted:
        problems.append(
            f"it ended its turn by itself on {stops} of {count} prompts, FP16 on {wanted}: its "
            "stop token is missing or out of reach; check tokenizer.ggml.eos_token_id and the "
            "chat template"
        )
    facts: dict[str, Any] = {
        "prompts": count, "stopped": stops, "fp16_stopped": wanted, "looping": len(loops),
        "silent": len(silent),
    }  # fmt: skip
    if problems:
        return Verdict("chat", False, "; ".join(problems), facts)
    tokens = sum(reply.tokens for reply in found)
    return Verdict(
        "chat",
        True,
        f"answered {count} prompts with {tokens} tokens, ended its turn by itself on {stops} "
        f"(FP16 on {wanted}), loops that FP16 has not on {len(loops)}",
        facts,
    )


def _asked(replies: Sequence[Reply]) -> str:
    more = f" and {len(replies) - 1} more" if len(replies) > 1 else ""
    return f"asked {replies[0].prompt[:40]!r}{more}"


def check_divergence(variant: str, gates: Gates, found: Sequence[Divergence]) -> Verdict:
    """Compare a variant's predictions with FP16's at every context length measured."""
    bounds = gates.bounds(variant)
    problems: list[str] = []
    for at in found:
        problems += _too_far(at, "perplexity ratio", at.ppl_ratio, bounds.ppl_ratio,
                             "max_ppl_ratio")  # fmt: skip
        problems += _too_far(at, "mean KL divergence", at.kld_mean, bounds.kld, "max_kld")
        problems += _too_far(at, "share of tokens whose likeliest successor changed", 1 - at.top1,
                             1 - bounds.top1, "min_top1")  # fmt: skip
    facts: dict[str, Any] = {}
    for at in found:
        facts |= {
            f"ppl_{at.context}": at.ppl, f"ppl_error_{at.context}": at.ppl_error,
            f"ppl_ratio_{at.context}": at.ppl_ratio, f"kld_{at.context}": at.kld_mean,
            f"kld_p99_{at.context}": at.kld_p99, f"kld_max_{at.context}": at.kld_max,
            f"top1_{at.context}": at.top1, f"rms_dp_{at.context}": at.rms_dp,
        }  # fmt: skip
    if not found:
        return Verdict("divergence", False, "nothing was measured")
    if problems:
        return Verdict("divergence", False, "; ".join(problems), facts)
    worst = max(found, key=lambda at: at.kld_mean)
    reason = (
        f"perplexity {worst.ppl:.4f} is {worst.ppl_ratio:.4f} of FP16's (bound "
        f"{bounds.ppl_ratio}), mean KL divergence {worst.kld_mean:.5f} (bound {bounds.kld}), "
        f"same top token {worst.top1:.2%} (bound {bounds.top1:.0%}), at context {worst.context}"
    )
    return Verdict("divergence", True, reason, facts)


def _too_far(at: Divergence, what: str, value: float, bound: float, key: str) -> list[str]:
    if value <= bound:  # a NaN is refused too
        return []
    return [
        f"{what} to FP16 is {value:.4f} at context {at.context}, the bound is {bound:g}: "
        + WIDER.format(key=key)
    ]


def check_tasks(variant: str, gates: Gates, found: Sequence[Choices]) -> Verdict:
    """Refuse a loss of task accuracy that is larger than the bound and beyond chance."""
    bound = gates.bounds(variant).task_drop
    facts: dict[str, Any] = {}
    problems = []
    for task in found:
        facts |= {
            f"{task.task}_accuracy": task.correct / task.items,
            f"{task.task}_difference": task.difference,
            f"{task.task}_p_value": task.p_value,
        }
        if not task.difference >= -bound and task.high < 0:
            problems.append(
                f"{task.task}: {task.correct} of {task.items} right, FP16 {task.base_correct}: a "
                f"loss of {-task.difference:.1%} (95 % between {-task.high:.1%} and "
                f"{-task.low:.1%}), the bound is {bound:.0%}: " + WIDER.format(key="max_task_drop")
            )
    if problems:
        return Verdict("tasks", False, "; ".join(problems), facts)
    said = ", ".join(f"{t.task} {t.correct}/{t.items} (FP16 {t.base_correct})" for t in found)
    return Verdict("tasks", True, said or "no task was asked", facts)


def check_agreement(gates: Gates, found: Agreement) -> Verdict:
    """Compare a kernel's logits with the reference kernel's on the same file and tokens."""
    facts = {
        "reference": found.reference,
        "nmse": found.nmse,
        "top1": found.top1,
        "largest_difference": found.largest_difference,
        "tokens": found.tokens,
    }
    bound = gates.max_logits_nmse
    if found.finite and found.nmse <= bound:
        reason = (
            f"logits differ from kernel {found.reference}'s by a normalized mean squared error "
            f"of {found.nmse:.2e} (bound {bound:g}), same top token {found.top1:.1%}"
        )
        return Verdict("agreement", True, reason, facts)
    what = f"{found.nmse:.2e}" if found.finite else "not a number"
    return Verdict(
        "agreement",
        False,
        f"the logits' error against kernel {found.reference} is {what}, the bound is {bound:g}: "
        "this kernel computes something else; do not release for it, and report it to llama.cpp",
        facts,
    )
