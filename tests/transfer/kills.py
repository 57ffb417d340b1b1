"""Kill, or fail, a transfer at each system call that changes the store; then run it again.

    python -m transfer.kills [--most N] [--seed N]

After each point: every object has the bytes that its name says; the same transfer run again ends
with the right bytes; nothing unfinished is left.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from quantmint.registry.leases import release_all
from quantmint.registry.store import Store
from quantmint.registry.transfer import Item

from .matrix import DATA, SHA256, SIZE, leave_partial
from .origin import FaultyOrigin

CALLS = ("openat", "mkdir", "write", "pwrite64", "ftruncate", "fdatasync", "fsync", "rename",
         "chmod", "unlink", "unlinkat", "rmdir", "flock", "link")  # fmt: skip
FAULTS = ("KILL", "ENOSPC", "EIO")
CLIENT = Path(__file__).with_name("client.py")


@dataclass(frozen=True)
class Point:
    """The `when`-th time that a thread makes this call; from a fresh start or a resumed one."""

    resumed: bool
    call: str
    when: int
    fault: str


def asked(root: Path, url: str) -> str:
    """Return what the client is told."""
    return json.dumps({
        "root": str(root), "origins": [url],
        "items": [{"sha256": SHA256, "size": SIZE, "path": "f"}],
        "limits": {"connections": 1, "part": 131_072, "step": 65_536, "tries": 1, "first": 0.01},
    })  # fmt: skip


def prepare(root: Path, *, resumed: bool) -> None:
    """Make a store, with an unfinished file if that is wanted."""
    shutil.rmtree(root, ignore_errors=True)
    store = Store(root).open()
    leave_partial(store, Item(sha256=SHA256, size=SIZE, path="f"), "good" if resumed else "none")
    release_all()


def traced(root: Path, url: str, expression: str, log: Path) -> subprocess.CompletedProcess[str]:
    """Run the client under strace."""
    words = [str(CLIENT), asked(root, url)]
    script = f"""import runpy, sys
sys.path[:0], sys.argv[:] = {sys.path!r}, {words!r}
runpy.run_path(sys.argv[0], run_name="__main__")"""
    return subprocess.run(
        ["strace", "-f", "--seccomp-bpf", "-qq", "-y", "-o", str(log), "-e", expression,
         sys.executable, "-I", "-S", "-B", "-c", script],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def points(root: Path, url: str) -> Iterator[Point]:
    """Yield every point: calls that name the store, counted in the thread that makes them."""
    for resumed in (False, True):
        prepare(root, resumed=resumed)
        log = root.parent / "log"
        ran = traced(root, url, f"trace={','.join(CALLS)}", log)
        assert ran.returncode == 0, ran.stderr
        seen: collections.Counter[tuple[str, str]] = collections.Counter()
        found: dict[tuple[str, int], None] = {}
        for line in log.read_text().splitlines():
            match = re.match(r"(\d+) +(\w+)\(", line)
            if match is None:
                continue
            seen[match[1], match[2]] += 1
            if str(root) in line:
                found[match[2], seen[match[1], match[2]]] = None
        for call, when in found:
            yield from (Point(resumed, call, when, fault) for fault in FAULTS)


def problem_after(point: Point, root: Path, url: str) -> str | None:
    """Run to that point and once more; return what is wrong then."""
    prepare(root, resumed=point.resumed)
    what = "signal=KILL" if point.fault == "KILL" else f"error={point.fault}"
    log = root.parent / "log"
    first = traced(root, url, f"inject={point.call}:{what}:when={point.when}", log)
    if "Traceback" in first.stderr and "OSError" not in first.stderr:
        return f"a traceback: {first.stderr[-300:]}"
    wrong = damaged(root)
    if wrong or (first.returncode == 0 and not (root / where()).exists()):
        return wrong or "it said that it was done"
    again = subprocess.run(
        [sys.executable, str(CLIENT), asked(root, url)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if again.returncode:
        return f"run again it failed: {again.stderr[-300:]}"
    left = [path.name for path in (root / "staging").iterdir()]
    there = (root / where()).read_bytes() == DATA
    return damaged(root) or (f"left: {left}" if left else None if there else "other bytes")


def where() -> str:
    """Return the object's place below the store."""
    return f"objects/sha256/{SHA256[:2]}/{SHA256}"


def damaged(root: Path) -> str | None:
    """Return the name of an object with other bytes than its name says."""
    for path in (root / "objects").rglob("*"):
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != path.name:
            return f"damaged: {path.name}"
    return None


def sweep(folder: Path, most: int | None = None, seed: int = 1) -> tuple[int, list[str]]:
    """Return how many points were tried, and what was wrong."""
    with FaultyOrigin({"f": DATA}) as origin:
        chosen = list(points(folder / "store", origin.url))
        if most is not None:
            chosen = random.Random(seed).sample(chosen, min(most, len(chosen)))
        wrong = [
            f"{point}: {said}"
            for point in chosen
            if (said := problem_after(point, folder / "store", origin.url))
        ]
    return len(chosen), wrong


def main() -> None:
    """Sweep, and say how it ended."""
    parser = argparse.ArgumentParser(prog="python -m transfer.kills", description=__doc__)
    parser.add_argument("--most", type=int, help="so many points, by chance")
    parser.add_argument("--seed", type=int, default=1)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        count, wrong = sweep(Path(folder), words.most, words.seed)
    print(*wrong, sep="\n")
    print(f"{count} points (killed, full disk, broken disk): {len(wrong)} problems")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
