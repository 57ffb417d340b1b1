"""Killed at any instant, the same command run again finishes, and nothing is left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from helpers import processes_of, run_in
from quantmint.home import Home

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("seconds", [3.0, 6.0, 9.0, 13.0])
def test_killed_builds_finish_when_run_again(seeded_home: Home, seconds: float) -> None:
    build = subprocess.Popen(
        [sys.executable, "-m", "quantmint", "build", "phi-3-nano", "-v", "Q4_K_M"],
        env={**os.environ, "QUANTMINT_HOME": str(seeded_home.root)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    time.sleep(seconds)
    build.send_signal(signal.SIGKILL)
    build.wait()
    deadline = time.monotonic() + 5
    while processes_of(seeded_home) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_of(seeded_home) == []
    assert ", 0 faults" in run_in(seeded_home, "verify").out

    again = run_in(seeded_home, "build", "phi-3-nano", "-v", "Q4_K_M")
    assert again.code == 0, again.err
    assert list((seeded_home.store / "staging").iterdir()) == []
    assert ", 0 faults" in run_in(seeded_home, "verify").out
