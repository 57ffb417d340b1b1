"""Mutants of GGUF files: one error type and no hang, and nothing that llama.cpp would choke on."""

from __future__ import annotations

import resource
import signal
import tracemalloc
from pathlib import Path

import pytest

from fuzz.differential import compare
from fuzz.mutants import built, mutant, seeds
from quantmint.native.build import Bundle
from quantmint.registry import gguf

MUTANTS = 50_000
SEED = 2026


def test_the_seeds_are_well_formed() -> None:
    for number in range(len(seeds())):
        data = built(number)
        gguf.parse(data, len(data))


def test_mutants_are_reproducible_and_mostly_new() -> None:
    made = [mutant(SEED, index) for index in range(500)]
    assert made == [mutant(SEED, index) for index in range(500)]
    assert len(set(made)) > 300


def test_fifty_thousand_mutants_raise_nothing_but_ggufs_own_error() -> None:
    """A mutant that takes two seconds is a hang: the alarm names it."""
    accepted, index = 0, 0

    def ring(signum: int, frame: object) -> None:
        raise AssertionError(f"mutant({SEED}, {index}) hangs")

    before = signal.signal(signal.SIGALRM, ring)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        for index in range(MUTANTS):
            data = mutant(SEED, index)
            signal.setitimer(signal.ITIMER_REAL, 2)
            try:
                gguf.parse(data, len(data))
            except gguf.GgufError as error:
                assert str(error).isprintable(), f"mutant({SEED}, {index})"
            else:
                accepted += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert 0.1 * MUTANTS < accepted < 0.5 * MUTANTS  # neither side of the gate goes untested
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 100_000  # kB


def test_mutants_cost_no_more_memory_than_they_weigh() -> None:
    for index in range(2_000):
        data = mutant(SEED, index)
        tracemalloc.start()
        try:
            gguf.parse(data, len(data))
        except gguf.GgufError:
            pass
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 60_000 + 8 * len(data), f"mutant({SEED}, {index}): {peak} bytes"


@pytest.mark.native
def test_llama_cpp_reads_all_that_we_accept(bundle: Bundle) -> None:
    """Its own reader, in a child, over the same mutants: nothing ends it, all facts are equal."""
    found = compare(bundle.folder / "libggml-base.so", SEED, range(10_000))
    assert found.is_clean, found
    assert found.mutants == 10_000
    assert found.accepted > 1_000
    assert found.llama_accepted > found.accepted


@pytest.mark.native
def test_the_comparison_sees_a_death_and_a_disagreement(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a gate that lets everything pass, the same run reports what llama.cpp refuses."""
    package = tmp_path / "sitecustomize.py"
    package.write_text(
        "from quantmint.registry import gguf\n"
        "gguf.parse = lambda data, size: gguf.Gguf(3, {}, (), 32, 24, size)\n"
    )
    monkeypatch.setattr("fuzz.differential.PATHS", [tmp_path, *_paths()])
    found = compare(bundle.folder / "libggml-base.so", SEED, range(1_000))
    assert not found.is_clean
    assert found.died
    assert found.only_ours
    assert found.differs


def _paths() -> list[Path]:
    from fuzz import differential

    return list(differential.PATHS)
