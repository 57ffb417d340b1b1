"""Two builds of one model at the same moment, in one home: both finish, with one set of bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from helpers import ROOT, run_in
from kills.point import MODEL, VARIANTS, Place, digests_of
from quantmint.home import Home
from quantmint.native.build import Bundle

pytestmark = pytest.mark.e2e


def test_two_builds_at_the_same_moment(
    tmp_path: Path, built_home: Home, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bundle.folder.is_dir()
    monkeypatch.setenv("DAGSTER_HOME", "")
    place = Place(tmp_path / "place").make(built_home)
    both = [start(place) for _ in range(2)]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    for words in said:
        assert all(f"{variant} " in words for variant in VARIANTS), words
        assert "FAILED" not in words
    digests = digests_of(place)
    assert set(digests) == {*VARIANTS, "fp16_gguf"}
    assert ", 0 faults" in run_in(place.home, "verify").out
    assert list((place.home.store / "staging").iterdir()) == []
    again = run_in(place.home, "build", MODEL, **place.env)
    assert (again.code, digests_of(place)) == (0, digests)
    assert "nothing to do" in again.out or "up to date" in again.out, again.out


def start(place: Place) -> subprocess.Popen[str]:
    words: Sequence[str] = [sys.executable, "-m", "quantmint", "build", MODEL]
    env = {**os.environ, **place.env, "QUANTMINT_HOME": str(place.home.root)}
    return subprocess.Popen(
        words, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
