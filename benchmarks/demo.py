"""Wall time of `make demo` on a fresh clone against the same work as plain shell commands.

    python benchmarks/demo.py [--keep FOLDER] [--filled]

Both sides run cold in fresh folders, one after the other, and fetch the same packages: pip's own
cache is filled beforehand, so that neither side pays the network alone. Then `make demo` once
more, warm.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def seconds(argv: list[str], cwd: Path) -> float:
    """Run a command without our own environment's homes; return its wall time."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("QUANTMINT_", "VIRTUAL_ENV"))}
    started = time.monotonic()
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{argv} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return time.monotonic() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="work here and keep the files")
    parser.add_argument("--filled", action="store_true", help="pip's cache is warm already")
    options = parser.parse_args()
    named = options.keep
    with tempfile.TemporaryDirectory() as temporary:
        work = named or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        clone, plain, filled = work / "clone", work / "plain", work / "fill"
        seconds(["git", "clone", "--quiet", str(ROOT), str(clone)], work)
        plain.mkdir()
        if not options.filled:
            seconds(["make", "install", f"VENV={filled}"], clone)
        by_hand = seconds([str(clone / "benchmarks" / "demo_plain.sh"), str(clone)], plain)
        cold = seconds(["make", "demo"], clone)
        warm = [seconds(["make", "demo"], clone) for _ in range(3)]
    bound = 1.25 * by_hand + 10
    print(f"plain shell commands   {by_hand:7.1f} s")
    print(f"make demo, cold        {cold:7.1f} s   {cold / by_hand:.2f}x; bound {bound:.1f} s")
    print(f"make demo, warm        {sorted(warm)[1]:7.1f} s   median of {len(warm)}; bound 20 s")


if __name__ == "__main__":
    main()
