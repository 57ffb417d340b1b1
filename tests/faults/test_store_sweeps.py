"""A store killed, or failed, at calls spread over all operations; `make sweep-store` tries each."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps import checker, sweep, verbs

TESTS = Path(__file__).resolve().parents[1]


def run(*words: str, module: str = "sweeps.sweep") -> str:
    """Sweep in a process of its own: it forks."""
    ran = subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=TESTS, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_killed_or_failing_at_system_calls() -> None:
    if not sweep.has_strace():
        pytest.skip("strace is missing, or may not trace: the seam below stands in")
    said = run("--kills", "50", "--errors", "40")
    assert said.startswith("strace: 50 kill points, 40 injected errors")


def test_killed_or_failing_at_python_calls() -> None:
    said = run("--seam", "--kills", "110", "--errors", "110")
    assert said.startswith("seam: 110 kill points, 110 injected errors")


def test_the_power_is_cut() -> None:
    if not sweep.has_strace():
        pytest.skip("strace is missing, or may not trace: there is nothing to replay")
    some = [word for verb in ("put_bytes", "replace_ref") for word in ("--verb", verb)]
    said = re.match(r"power: (\d+) states, (\d+) of", run(*some, module="sweeps.power"))
    assert said is not None
    assert int(said[1]) > 1000
    assert int(said[2]) > 20


def test_the_judge_sees_what_it_must(tmp_path: Path) -> None:
    """The checker and the sweep find a store that breaks its promises."""
    world = verbs.World(tmp_path / "world")
    world.begin()
    store = world.store
    assert checker.faults(store.root) == []
    good = store.put_bytes(b"good")
    (store.objects / "ab" / ("ab" * 32)).parent.mkdir(exist_ok=True)
    (store.objects / "ab" / ("ab" * 32)).write_bytes(b"half an obj")
    assert checker.faults(store.root) == [f"corrupt object {'ab' * 32}"]
    (store.objects / "ab" / ("ab" * 32)).unlink()
    store.path(good.sha256).rename(store.objects / "cd")
    assert list(sweep.unfinished(world, "put_bytes")) != []
    tree = next(store.trees.glob("*/kept/k1"))
    tree.unlink()
    assert checker.faults(store.root) == ["checkout without k1"]
