"""A release to a folder, killed or failed at each system call: `python -m sweeps.folder`.

After each point a reader finds the old release or the new one, whole, and the same release run
again finishes. Where strace is missing, Python's audit events and fsync stand for system calls.
As a child, `folder.py SRC ROOT release` is one such release; it prints `done` or its typed error.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
SIZE = 80_000
ERRORS = ("ENOSPC", "EIO")


def release(root: Path, name: str, seed: int, before: Callable[[], None] = lambda: None) -> None:
    """Publish one of the two releases; `before` is called when everything is imported and read."""
    from publishing import contents, file_set
    from quantmint.registry.publish import FolderTarget, Options, Release, publish
    from quantmint.registry.store import Store

    store = Store(root / "store").open()
    what = Release(name=name, files=file_set(store, contents(seed, SIZE)))
    before()
    publish(
        what,
        FolderTarget(root / "registry"),
        smoke=lambda _path, _file: None,
        options=Options(work=root / "work"),
    )


def seen(root: Path) -> str:
    """Say what a reader finds: `v1`, `v2`, or what is wrong; knows only sha256."""
    from publishing import contents

    registry = root / "registry"
    found = {}
    for path, row in json.loads((registry / "main.json").read_bytes())["files"].items():
        data = (registry / row["at"]).read_bytes()
        if hashlib.sha256(data).hexdigest() != row["sha256"] or len(data) != row["size"]:
            return f"{path} is damaged"
        found[path] = data
    found.pop("quantmint.status.json", None)
    for name, seed in (("v1", 1), ("v2", 2)):
        if found == contents(seed, SIZE):
            return name
    return f"a mixture: {sorted(found)}"


def perform(root: Path, _: str, seam: str = "") -> int:
    """Release v2 over v1, killed or failed where the seam says; return the exit code."""
    from quantmint.errors import QuantmintError
    from sweeps import verbs

    kind, _, when = seam.partition(":")
    count: Callable[[], int] | None = None

    def begin() -> None:
        nonlocal count
        with contextlib.suppress(FileNotFoundError):
            Path(verbs.MARK).rmdir()
        count = verbs.install_seam(kind, int(when)) if seam else None

    try:
        release(root, "v2", 2, begin)
    except QuantmintError as error:
        os.write(1, f"typed {type(error).__name__}: {error}\n".encode())
        return error.exit_code
    os.write(1, b"done\n" if kind != "COUNT" or count is None else f"done\n{count()}".encode())
    return 0


def problems(root: Path, fault: str, ran: subprocess.CompletedProcess[str]) -> Iterator[str]:
    """Yield what a point left that must not be."""
    after, said_done = seen(root), ran.stdout == "done\n"
    if after not in {"v1", "v2"} or (said_done and after != "v2"):
        yield f"{ran.stdout.strip()}, then {after}"
    if fault != "KILL" and not said_done and not ran.stdout.startswith("typed "):
        yield f"no typed error: {ran.stdout}{ran.stderr[-600:]}"
    try:
        release(root, "v2", 2)
    except Exception as error:  # noqa: BLE001 - any failure is a finding
        yield f"run again: {error!r}"
    if seen(root) != "v2":
        yield f"run again, then {seen(root)}"
    if left := [p.name for p in (root / "registry" / "staging").iterdir() if p.name[0] != "."]:
        yield f"left over: {left}"


def sweep(scratch: Path, kills: int | None, errors: int | None, *, seam: bool) -> dict[str, object]:
    """Try the points, evenly spread; return how many there were and what went wrong."""
    from quantmint.registry.leases import release_all
    from sweeps import sweep as sweeps

    use = seam or not sweeps.has_strace()
    tool = sweeps.Seam(perform) if use else sweeps.Strace(__file__, "-I", "-B")
    template, root = scratch / "template", scratch / "root"
    release(template, "v1", 1)
    release_all()

    def fresh() -> Path:
        shutil.rmtree(root, ignore_errors=True)
        # Hard links stay links: releases share files by them.
        subprocess.run(["cp", "-a", template, root], check=True)
        return root

    points = tool.points(fresh(), "release", sweeps.CHANGING)
    todo = sweeps.sample([(p, "KILL") for p in points], kills)
    todo += sweeps.sample([(p, e) for p in points for e in ERRORS], errors)
    wrong = []
    for point, fault in todo:
        ran = tool.inject(fresh(), point, fault)
        wrong += [f"{fault} at {point}: {found}" for found in problems(root, fault, ran)]
        release_all()
    killed = sum(fault == "KILL" for _, fault in todo)
    return {"tool": tool.name, "kills": killed, "errors": len(todo) - killed, "wrong": wrong}


def main() -> int:
    """Sweep, and print what was found and how much was tried."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, help="how many kill points (all)")
    parser.add_argument("--errors", type=int, help="how many injected errors (all)")
    parser.add_argument("--seam", action="store_true", help="without strace")
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        found = sweep(Path(scratch), options.kills, options.errors, seam=options.seam)
    print(json.dumps({**found, "seconds": round(time.monotonic() - started)}))
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    if sys.argv[-1] == "release":
        sys.path[:0] = [sys.argv[1], str(TESTS)]
        sys.exit(perform(Path(sys.argv[2]), sys.argv[3]))
    sys.exit(main())
