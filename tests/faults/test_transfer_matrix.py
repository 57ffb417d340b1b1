"""A sample of the transfer fault matrix; `make transfer-matrix` runs all of it."""

from pathlib import Path

import pytest

from quantmint.registry.leases import release_all
from sweeps.sweep import has_strace
from transfer.kills import sweep
from transfer.matrix import BEHAVIOURS, CUTS, PARTIALS, cases, run_all, sample


def test_a_sample_of_the_matrix_ends_right_or_refused(tmp_path: Path) -> None:
    """The seed stands here; a case that fails names itself."""
    ended = list(run_all(sample(seed=20, count=60), tmp_path))
    release_all()
    assert [f"{one.case}: {one.problem}" for one in ended if one.problem] == []
    assert {one.case.behaviour for one in ended} == set(BEHAVIOURS)
    assert {one.how for one in ended if one.case.behaviour == "wrong bytes"} >= {"IntegrityError"}


def test_the_matrix_is_whole() -> None:
    assert (len(CUTS), len(BEHAVIOURS), len(PARTIALS)) == (8, 17, 5)
    assert len(cases()) == 2 * 680


def test_a_sample_of_kills_and_disk_errors_leaves_nothing_wrong(tmp_path: Path) -> None:
    if not has_strace():
        pytest.skip("strace is missing, or may not trace")
    count, wrong = sweep(tmp_path, most=6, seed=3)
    release_all()
    assert wrong == []
    assert count == 6
