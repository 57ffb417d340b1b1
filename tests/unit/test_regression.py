"""The regression watch, on the numbers of the embedded model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from assay_records import BASIS, PIN, record, withheld
from quantmint.assets.assay.record import Assayed
from quantmint.assets.regression import accept, compare, golden_of, load_golden, watch
from quantmint.assets.verdict import Verdict
from quantmint.errors import IntegrityError, UserError
from quantmint.native.evaluation.results import SpeedAt, Speeds
from quantmint.registry.store import Store

NEW_PIN = "0123456789abcdef0123456789abcdef01234567"
MODEL = "phi-3-nano"


def moved(**by: float) -> Assayed:
    """Return the record with fields of its first context moved by so many of their own bars."""
    whole = record()
    first = whole.divergences[0]
    bars = {
        "kld_mean": first.kld_error, "top1": first.top1_error, "rms_dp": first.rms_dp_error,
        "ppl_ratio": first.ppl_ratio_error, "base_ppl": 0.001 * first.base_ppl,
        "ppl": first.ppl * (0.001**2 + (first.ppl_ratio_error / first.ppl_ratio) ** 2) ** 0.5,
    }  # fmt: skip
    changed: dict[str, Any] = {n: getattr(first, n) + count * bars[n] for n, count in by.items()}
    return replace(whole, divergences=(replace(first, **changed), whole.divergences[1]))


def against(new: Assayed, old: Assayed | None = None) -> Verdict:
    """Compare a record under a new pin with one under the old."""
    return compare(golden_of(old or record(), PIN, BASIS), golden_of(new, NEW_PIN, BASIS))


def test_the_same_numbers_pass() -> None:
    verdict = against(record())
    assert verdict.passed
    assert verdict.reason.startswith("16 values between llama.cpp 832db0699007 and 0123456789ab")


@pytest.mark.parametrize(
    ("field", "bars"),
    [("kld_mean", 1), ("top1", -1), ("rms_dp", 1), ("ppl_ratio", 1), ("base_ppl", 1), ("ppl", 1)],
)
def test_each_measure_blocks_beyond_its_bar_and_only_when_it_gets_worse(
    field: str, bars: int
) -> None:
    assert against(moved(**{field: 0.9 * bars})).passed
    better = against(moved(**{field: -1.1 * bars}))
    assert better.passed
    assert "(better; bar" in better.reason
    worse = against(moved(**{field: 1.1 * bars}))
    assert not worse.passed
    name = "fp16_ppl" if field == "base_ppl" else field
    assert f"{name}_512x64 was " in worse.reason
    assert "(worse; bar" in worse.reason
    assert "_1024x32" not in worse.reason


def test_the_message_names_pins_values_bar_and_what_to_do() -> None:
    verdict = against(moved(kld_mean=3))
    assert "between llama.cpp 832db0699007 and 0123456789ab (the same bytes" in verdict.reason
    assert "kld_mean_512x64 was 0.00856, is 0.00901 (worse; bar 0.00015)" in verdict.reason
    assert "--accept-measurements" in verdict.reason
    assert verdict.facts["kld_mean_512x64_before"] == 0.00856
    assert verdict.facts["pin_now"] == NEW_PIN
    other = replace(moved(kld_mean=3), digests={**record().digests, "gguf": "9" * 64})
    assert "(other bytes)" in against(other).reason


def test_what_kernels_of_one_llama_cpp_differ_by_is_no_regression() -> None:
    """Q8_0 on x64 and on zen4, 12 chunks of 512 tokens: as measured, and below every bar."""
    first = record("Q8_0").divergences[0]
    one = replace(
        first, chunks=12, ppl=29.169034, base_ppl=29.178293, ppl_ratio=0.9996834,
        ppl_ratio_error=0.00042, kld_mean=0.00030003, kld_error=0.000005, top1=0.98856,
        top1_error=0.0019, rms_dp=0.003606, rms_dp_error=0.00017,
    )  # fmt: skip
    other = replace(
        one, ppl=29.167510, base_ppl=29.178430, ppl_ratio=0.9996241, kld_mean=0.00029141,
        top1=0.98758, rms_dp=0.003545,
    )  # fmt: skip
    for old, new in ((one, other), (other, one)):
        verdict = against(record("Q8_0", divergences=(new,)), record("Q8_0", divergences=(old,)))
        assert verdict.passed
        assert "was" not in verdict.reason


def test_a_value_that_is_no_number_blocks() -> None:
    assert not against(moved(kld_mean=float("nan"))).passed


def test_a_worse_variant_in_a_good_ones_place_is_seen_in_every_quality_measure() -> None:
    swapped = record("Q4_K_M", divergences=record("Q2_K").divergences)
    verdict = against(swapped)
    assert not verdict.passed
    for name in ("kld_mean", "ppl_ratio", "top1", "rms_dp", "ppl"):
        assert f"{name}_512x64 was" in verdict.reason
        assert f"{name}_1024x32 was" in verdict.reason
    assert "fp16_ppl" not in verdict.reason


@pytest.mark.parametrize(("correct", "passes"), [(36, True), (34, True), (33, False), (40, True)])
def test_a_task_may_lose_two_items_to_ties(correct: int, passes: bool) -> None:
    task = replace(record().choices[0], correct=correct)
    assert against(record(choices=(task,))).passed is passes


def test_speed_beyond_its_spread_is_told_and_blocks_nothing() -> None:
    slow = SpeedAt(tokens=32, repetitions=3, median=900.0, low=880.0, high=910.0)
    slower = record(speeds=Speeds(prompt=(), generation=(slow,)))
    verdict = against(slower)
    assert verdict.passed
    assert "generation_tps_32 was 1825, is 900 (worse; bar 33)" in verdict.reason
    elsewhere = against(replace(slower, cpu="another CPU"))
    assert "generation_tps_32" not in elsewhere.reason


def test_another_source_or_text_is_not_compared() -> None:
    old = golden_of(record(), PIN, BASIS)
    verdict = compare(old, golden_of(moved(kld_mean=50), NEW_PIN, {"source": "6" * 64}))
    assert verdict.passed
    assert "other source" in verdict.reason
    text = replace(moved(kld_mean=50), digests={**record().digests, "text": "e" * 64})
    assert "other text" in against(text).reason


def test_more_chunks_are_another_text() -> None:
    whole = moved(kld_mean=50)
    more = tuple(replace(at, chunks=at.chunks * 2) for at in whole.divergences)
    verdict = against(replace(whole, divergences=more, choices=()))
    assert verdict.passed
    assert "nothing to compare" in verdict.reason


def test_first_values_are_golden_and_stay_so_until_others_are_accepted(store: Store) -> None:
    first = watch(store, record(), PIN, BASIS)
    assert first.passed
    assert "golden from now on" in first.reason
    # Two small steps, each within the bar of the one before: their sum is seen.
    assert watch(store, moved(kld_mean=0.7), NEW_PIN, BASIS).passed
    drifted = moved(kld_mean=1.4)
    assert not watch(store, drifted, NEW_PIN, BASIS).passed
    assert not watch(store, drifted, NEW_PIN, BASIS).passed
    accept(store, MODEL, [golden_of(drifted, NEW_PIN, BASIS)])
    assert watch(store, drifted, NEW_PIN, BASIS).passed
    assert load_golden(store, MODEL)["Q4_K_M", "zen4"].pin == NEW_PIN


def test_variants_and_kernels_have_values_of_their_own(store: Store) -> None:
    for variant, kernel in (("Q8_0", "zen4"), ("Q4_K_M", "zen4"), ("Q4_K_M", "x64")):
        assert "first measured" in watch(store, record(variant, kernel), PIN, BASIS).reason
    assert len(load_golden(store, MODEL)) == 3
    accept(store, MODEL, [golden_of(moved(kld_mean=5), NEW_PIN, BASIS)])
    pins = {key: golden.pin for key, golden in load_golden(store, MODEL).items()}
    assert pins == {("Q8_0", "zen4"): PIN, ("Q4_K_M", "x64"): PIN, ("Q4_K_M", "zen4"): NEW_PIN}


def test_what_was_withheld_is_never_golden(store: Store) -> None:
    assert "withheld" in watch(store, withheld("Q2_K"), PIN, BASIS).reason
    assert load_golden(store, MODEL) == {}


def test_a_context_that_is_added_is_watched_from_then_on(store: Store) -> None:
    whole = record()
    watch(store, replace(whole, divergences=whole.divergences[:1]), PIN, BASIS)
    assert watch(store, whole, NEW_PIN, BASIS).passed
    worse = replace(whole.divergences[1], kld_mean=0.02)
    bad = replace(whole, divergences=(whole.divergences[0], worse))
    assert "kld_mean_1024x32 was 0.00947" in watch(store, bad, NEW_PIN, BASIS).reason


def test_another_source_begins_anew(store: Store) -> None:
    watch(store, record(), PIN, BASIS)
    verdict = watch(store, moved(kld_mean=50), NEW_PIN, {"source": "6" * 64})
    assert verdict.passed
    assert "another basis" in verdict.reason
    assert load_golden(store, MODEL)["Q4_K_M", "zen4"].basis["source"] == "6" * 64


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[1]", b'{"golden":2,"model":"phi-3-nano","rows":[]}',
     b'{"golden":1,"model":"another","rows":[]}',
     b'{"golden":1,"model":"phi-3-nano","rows":[{"variant":"Q8_0"}]}'],
)  # fmt: skip
def test_damaged_golden_values_are_refused_with_the_way_out(store: Store, damage: bytes) -> None:
    watch(store, record(), PIN, BASIS)
    path = store.root / "golden" / "phi-3-nano.json"
    path.write_bytes(damage)
    with pytest.raises(IntegrityError, match=r"golden values .* are damaged") as caught:
        watch(store, record(), PIN, BASIS)
    assert str(path) in str(caught.value.mend)


def test_a_models_name_is_no_path(store: Store) -> None:
    with pytest.raises(UserError):
        load_golden(store, "../../etc/passwd")
