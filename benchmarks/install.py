"""The base install in a fresh environment: packages, bytes, and how long it takes to begin.

Wall time and CPU seconds stand side by side: on a machine that does other work the second holds.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUNS = 21
MB = 1e6


@dataclass(frozen=True)
class Cost:
    """One run of a program: seconds by the clock and of the CPU, and the most memory in bytes."""

    wall: float
    cpu: float
    memory: int


def main() -> None:
    """Install, count, and measure."""
    os.environ.pop("PYTHONPATH", None)  # pip would take a checkout that it names for an install
    with tempfile.TemporaryDirectory(prefix="quantmint-install-") as folder:
        venv = Path(folder)
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        python = venv / "bin/python"
        site = next(venv.glob("lib/python*/site-packages"))
        before, parts = _packages(python), _parts(site)
        pip = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        took = _run([*pip, "-c", ROOT / "constraints.txt", ROOT])
        names = _packages(python) - before
        print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        print(f"pip install: {took.wall:.0f} s, {took.cpu:.1f} s of the CPU")
        # pip is not ours, nor what it compiled of itself meanwhile.
        ours = {name: size for name, size in _parts(site).items() if name not in parts}
        print(f"packages: {len(names)}, {sum(ours.values()) / MB:.0f} MB, compiled files included")
        for name, size in sorted(ours.items(), key=lambda row: -row[1])[:4]:
            print(f"  {name:<24}{size / MB:6.1f} MB")
        home = {"QUANTMINT_HOME": str(venv / "home"), "PATH": os.environ["PATH"]}
        print(f"{'medians of ' + str(RUNS) + ' runs':<34}{'wall':>9}{'CPU':>9}{'memory':>9}")
        code = [python, "-c"]
        for told, words in (
            ("python alone", [*code, "pass"]),
            ("quantmint --help", [venv / "bin/quantmint", "--help"]),
            ("import quantmint", [*code, "import quantmint"]),
            ("all that a pull imports", [*code, "import quantmint.registry.pull.engine"]),
        ):
            _run(words, env=home)  # the disk's part
            runs = [_run(words, env=home) for _ in range(RUNS)]
            wall = statistics.median(run.wall for run in runs)
            cpu = statistics.median(run.cpu for run in runs)
            memory = statistics.median(run.memory for run in runs)
            print(f"{told:<34}{wall:7.2f} s{cpu:7.2f} s{memory / MB:6.0f} MB")


def _run(words: list[object], *, env: dict[str, str] | None = None) -> Cost:
    start = time.monotonic()
    process = subprocess.Popen([str(word) for word in words], env=env, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{words[0]} failed with {process.returncode}")
    cpu = used.ru_utime + used.ru_stime
    return Cost(time.monotonic() - start, cpu, used.ru_maxrss * 1024)


def _packages(python: Path) -> set[str]:
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"],
        check=True, capture_output=True,
    ).stdout  # fmt: skip
    return {row["name"] for row in json.loads(listed)}


def _parts(site: Path) -> dict[str, int]:
    return {
        path.name: sum(one.lstat().st_size for one in (path, *path.rglob("*")) if one.is_file())
        for path in site.iterdir()
    }


if __name__ == "__main__":
    main()
