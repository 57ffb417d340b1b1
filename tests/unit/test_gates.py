"""The gates as pure functions: each bound, each message, and what slips through by design."""

from __future__ import annotations

from dataclasses import replace

import pytest

from quantmint.assets.assay.gates import (
    check_agreement,
    check_chat,
    check_divergence,
    check_tasks,
)
from quantmint.assets.recipe import Gates
from quantmint.native.evaluation.results import Agreement, Choices, Divergence, Reply

NAN = float("nan")
GOOD = Divergence(
    context=512, chunks=8, tokens=2048, ppl=10.1, ppl_error=0.1, base_ppl=10.0, base_ppl_error=0.1,
    ppl_ratio=1.01, ppl_ratio_error=0.001, kld_mean=0.01, kld_error=0.0001, kld_median=0.005,
    kld_p99=0.1, kld_p999=0.3, kld_max=1.0, top1=0.96, top1_error=0.004, rms_dp=0.02,
    rms_dp_error=0.001,
)  # fmt: skip
ANSWER = Reply(
    prompt="hello", rendered="<|user|>hello", text="a word", ended="stop", tokens=3, finite=True,
    repetition=0.0, looping=False,
)  # fmt: skip
TASK = Choices(
    task="facts", items=100, correct=60, base_correct=62, difference=-0.02, low=-0.05, high=0.01,
    gained=1, lost=3, p_value=0.6,
)  # fmt: skip
NEAR = Agreement(
    reference="x64", tokens=64, nmse=1e-6, top1=1.0, largest_difference=0.01, finite=True
)


def test_a_good_variant_passes_and_the_reason_names_value_and_bound() -> None:
    verdict = check_divergence("Q4_K_M", Gates(), [GOOD])
    assert verdict.passed
    assert "KL divergence 0.01000 (bound 0.25)" in verdict.reason
    assert verdict.facts["kld_512"] == 0.01


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"ppl_ratio": 1.3}, "perplexity ratio to FP16 is 1.3000 at context 512, the bound is 1.2"),
        ({"kld_mean": 0.3}, "mean KL divergence to FP16 is 0.3000 at context 512"),
        ({"top1": 0.5}, "whose likeliest successor changed to FP16 is 0.5000"),
        ({"kld_mean": NAN}, "is nan"),
        ({"ppl_ratio": NAN}, "is nan"),
    ],
)
def test_each_measure_is_a_gate_of_its_own(changed: dict[str, float], said: str) -> None:
    verdict = check_divergence("Q4_K_M", Gates(), [replace(GOOD, **changed)])
    assert not verdict.passed
    assert said in verdict.reason
    assert "use a wider variant, or set gates: " in verdict.reason


def test_one_bad_context_among_good_ones_refuses() -> None:
    bad = replace(GOOD, context=8192, kld_mean=4.0)
    verdict = check_divergence("Q8_0", Gates(), [GOOD, bad])
    assert not verdict.passed
    assert "at context 8192" in verdict.reason
    assert "at context 512" not in verdict.reason


def test_nothing_measured_is_no_pass() -> None:
    assert not check_divergence("Q8_0", Gates(), []).passed


def test_fewer_bits_may_diverge_more_and_a_model_file_overrules_both() -> None:
    rough = replace(GOOD, kld_mean=0.6, ppl_ratio=1.4, top1=0.7)
    assert not check_divergence("Q4_K_M", Gates(), [rough]).passed
    assert check_divergence("Q2_K", Gates(), [rough]).passed
    loose = Gates(max_kld=1.0, max_ppl_ratio=2.0, min_top1=0.5)
    assert check_divergence("Q4_K_M", loose, [rough]).passed


def test_a_loss_of_accuracy_counts_only_beyond_bound_and_chance() -> None:
    assert check_tasks("Q4_K_M", Gates(), [TASK]).passed
    lost = replace(TASK, correct=40, difference=-0.22, low=-0.3, high=-0.14, lost=22, gained=0)
    verdict = check_tasks("Q4_K_M", Gates(), [TASK, lost])
    assert not verdict.passed
    assert "facts: 40 of 100 right, FP16 62: a loss of 22.0%" in verdict.reason
    by_chance = replace(lost, high=0.01)
    assert check_tasks("Q4_K_M", Gates(), [by_chance]).passed


def test_logits_that_are_no_numbers_are_refused_on_one_prompt_already() -> None:
    bad = replace(ANSWER, finite=False)
    verdict = check_chat(Gates(chat=False), [ANSWER, ANSWER, bad], [ANSWER] * 3)
    assert not verdict.passed
    assert "NaN or infinity" in verdict.reason


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"text": " ... "}, "has no word"),
        ({"looping": True}, "again and again"),
        ({"ended": "length"}, "stop token is missing"),
    ],
)
def test_a_fault_on_most_prompts_refuses_and_on_one_does_not(
    fault: dict[str, object], said: str
) -> None:
    bad = replace(ANSWER, **fault)  # type: ignore[arg-type]
    verdict = check_chat(Gates(), [bad, bad, ANSWER], [ANSWER] * 3)
    assert not verdict.passed
    assert said in verdict.reason
    assert check_chat(Gates(), [bad, ANSWER, ANSWER], [ANSWER] * 3).passed
    assert check_chat(Gates(chat=False), [bad] * 3, [ANSWER] * 3).passed


def test_a_model_that_never_stopped_need_not_stop_now() -> None:
    endless = replace(ANSWER, ended="length", looping=True)
    assert check_chat(Gates(), [endless] * 3, [endless] * 3).passed


def test_a_kernel_whose_logits_are_off_is_refused() -> None:
    assert check_agreement(Gates(), NEAR).passed
    verdict = check_agreement(Gates(), replace(NEAR, nmse=0.5))
    assert not verdict.passed
    assert "the bound is 0.001" in verdict.reason
    assert not check_agreement(Gates(), replace(NEAR, finite=False)).passed
    assert not check_agreement(Gates(), replace(NEAR, nmse=NAN)).passed
