"""Kills and errors at each call of a release to a folder: `python tests/sweep_folder.py DIR`.

Each point runs in a fork of its own, which ends (or gets the error) at the n-th call; then an
independent check looks at what a reader would see, and the same release must finish.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from publishing import contents, file_set, smoke
from quantmint.errors import QuantmintError
from quantmint.registry.publish import FolderTarget, Options, Release, publish
from quantmint.registry.store import Store

CALLS = ("rename", "link", "fsync", "mkdir", "unlink", "chmod", "open")
SIZE = 200_000


class Seam:
    """Counts the calls of `CALLS`, and does something at the n-th."""

    def __init__(self, at: int, do: Callable[[], None]) -> None:
        self.count, self.at, self.do = 0, at, do
        for name in CALLS:
            setattr(os, name, self.wrap(getattr(os, name)))

    def wrap(self, real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            self.count += 1
            if self.count == self.at:
                self.do()
            return real(*args, **kwargs)

        return call


def seen(root: Path) -> str:
    """Say what a reader finds: `nothing`, `v1`, `v2`, or what is wrong; knows only sha256."""
    main = root / "main.json"
    if not main.exists():
        return "nothing"
    found = {}
    for path, row in json.loads(main.read_bytes())["files"].items():
        data = (root / row["at"]).read_bytes()
        if hashlib.sha256(data).hexdigest() != row["sha256"] or len(data) != row["size"]:
            return f"{path} is damaged"
        found[path] = data
    found.pop("quantmint.status.json", None)
    for name, seed in (("v1", 1), ("v2", 2)):
        if found == contents(seed, SIZE):
            return name
    return f"a mixture: {sorted(found)}"


def in_fork(work: Callable[[], int]) -> int:
    """Run in a fork; return its exit code."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def release(root: Path, work: Path, name: str, seed: int) -> int:
    """Publish one of the two releases; return the exit code of who must act."""
    store = Store(work / "store").open()
    files = file_set(store, contents(seed, SIZE))
    return send(root, work, Release(name=name, files=files))


def send(root: Path, work: Path, what: Release) -> int:
    try:
        publish(what, FolderTarget(root), smoke=smoke, options=Options(work=work))
    except QuantmintError as error:
        return error.exit_code
    return 0


def point(folder: Path, old: Path, n: int, error: int | None) -> str | None:
    """Release v2 on top of v1 with a fault at the n-th call; return what went wrong, if anything.

    The word `past` says that there is no n-th call.
    """
    root, work = folder / f"r{n}-{error}", folder / "work"
    shutil.copytree(old, root)
    store = Store(work / "store").open()
    what = Release(name="v2", files=file_set(store, contents(2, SIZE)))

    def faulty() -> int:
        def do() -> None:
            if error is None:
                os._exit(77)
            raise OSError(error, os.strerror(error), "somewhere")

        seam = Seam(n, do)
        code = send(root, work, what)
        return 98 if code == 0 and seam.count < n else code

    code, after = in_fork(faulty), seen(root)
    problem = None
    if code == 98:
        problem = "past"
    elif after not in {"v1", "v2"} or code not in {77, 0, 2, 6}:
        problem = f"call {n}, error {error}: exit code {code}, then {after}"
    elif (again := in_fork(lambda: send(root, work, what))) != 0 or seen(root) != "v2":
        problem = f"call {n}, error {error}: the next run ended with {again}, then {seen(root)}"
    shutil.rmtree(root)
    return problem


def main(folder: Path, step: int) -> None:
    """Sweep, and print how many points there were and what went wrong."""
    old, work = folder / "old", folder / "work"
    assert in_fork(lambda: release(old, work, "v1", 1)) == 0
    assert seen(old) == "v1"
    found = {"kills": 0, "errors": 0}
    bad: list[str] = []
    for kind, error in (("kills", None), ("errors", errno.ENOSPC), ("errors", errno.EIO)):
        n = 1
        while (problem := point(folder, old, n, error)) != "past":
            found[kind] += 1
            bad += [problem] if problem else []
            n += step
    print(json.dumps({**found, "bad": bad}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
