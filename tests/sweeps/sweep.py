"""Kill, or fail, a store at each system call of each operation, and see what is left.

    python -m sweeps.sweep [--kills N] [--errors N] [--verb V]...

After each point: nothing damaged is visible (judged by `checker`, which knows only sha256), the
operation run again succeeds, and nothing of the killed process is left. An operation that fails
says so with a typed error; one that says `done` has done it.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantmint.registry import gc  # noqa: F401 - compiled once, not in every child
from quantmint.registry.leases import release_all
from sweeps import checker, verbs

SOURCE = Path(__file__).resolve().parents[2] / "src"
# Calls that change what is there; a kill before any other call leaves what the one before left.
CHANGING = ("openat", "write", "pwrite64", "close", "fsync", "rename", "link", "linkat", "unlink",
            "unlinkat", "mkdir", "rmdir", "chmod", "flock", "ioctl", "fallocate", "sendfile",
            "copy_file_range")  # fmt: skip
LOOKING = ("read", "newfstatat", "getdents64")
ERRORS = ("EIO", "ENOSPC", "EDQUOT", "EROFS", "EMFILE", "EINTR")


@dataclass(frozen=True)
class Point:
    """The `when`-th time that the operation makes this call (or comes to this event)."""

    verb: str
    call: str
    when: int


class Strace:
    """Injects into system calls of a script that is called as `verbs` is."""

    name = "strace"

    def __init__(self, script: str = verbs.__file__, *flags: str) -> None:
        self.script, self.flags = script, flags or ("-I", "-S", "-B")

    def points(self, root: Path, verb: str, calls: Sequence[str]) -> list[Point]:
        log = root.parent / "log"
        ran = _run([*self._strace(log, f"trace={','.join(calls)}"), *self.child(root, verb)])
        assert ran.stdout == "done\n", ran.stdout + ran.stderr
        seen: collections.Counter[str] = collections.Counter()
        found, began = [], False
        for line in log.read_text().splitlines():
            match = re.match(r"\d+ +(\w+)\(", line)
            if match is None:
                continue
            seen[match[1]] += 1
            began = began or verbs.MARK in line
            # What it writes to standard output is no operation of the store.
            if began and verbs.MARK not in line and f"{match[1]}(1, " not in line:
                found.append(Point(verb, match[1], seen[match[1]]))
        return found

    def inject(self, root: Path, point: Point, fault: str) -> subprocess.CompletedProcess[str]:
        what = "signal=KILL" if fault == "KILL" else f"error={fault}"
        inject = f"inject={point.call}:{what}:when={point.when}"
        return _run([*self._strace(root.parent / "log", inject), *self.child(root, point.verb)])

    @staticmethod
    def _strace(log: Path, expression: str) -> list[str]:
        return ["strace", "-f", "--seccomp-bpf", "-qq", "-o", str(log), "-e", expression]

    def child(self, root: Path, verb: str) -> list[str]:
        """Return the command of one operation."""
        return [sys.executable, *self.flags, self.script, str(SOURCE), str(root), verb]


class Seam:
    """Injects into Python's audit events and fsync, in a forked child: needs no strace."""

    name = "seam"

    def __init__(self, perform: Callable[[Path, str, str], int] = verbs.perform) -> None:
        self.perform = perform

    def points(self, root: Path, verb: str, _: Sequence[str]) -> list[Point]:
        ran = self.inject(root, Point(verb, "event", 0), "COUNT")
        done, count = ran.stdout.split()
        assert done == "done", ran.stdout
        return [Point(verb, "event", when) for when in range(1, int(count) + 1)]

    def inject(self, root: Path, point: Point, fault: str) -> subprocess.CompletedProcess[str]:
        said = root.parent / "said"
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                fd = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(fd, 1)
                os.dup2(fd, 2)
                code = self.perform(root, point.verb, f"{fault}:{point.when}")
            except BaseException:  # noqa: BLE001 - the child must end here, whatever it was
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return subprocess.CompletedProcess([], code, said.read_text(), "")


def has_strace() -> bool:
    """Return whether strace is here and may trace."""
    probe = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", "trace=write", "true"]
    return bool(shutil.which("strace")) and _run(probe).returncode == 0


def _run(argv: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


class Sweep:
    """Runs points in a scratch folder and gathers what went wrong."""

    def __init__(self, scratch: Path, tool: Strace | Seam) -> None:
        self.template = scratch / "template"
        self.scratch = scratch
        self.tool = tool
        self.wrong: list[str] = []
        self.count: collections.Counter[str] = collections.Counter()
        verbs.World(self.template).begin()
        release_all()

    def fresh(self) -> Path:
        root = self.scratch / "root"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(self.template, root)
        _relink(root)
        return root

    def points(self, names: Sequence[str], calls: Sequence[str]) -> list[Point]:
        found = [self.tool.points(self.fresh(), verb, calls) for verb in names]
        return list(itertools.chain(*found))

    def try_point(self, point: Point, fault: str) -> None:
        root = self.fresh()
        ran = self.tool.inject(root, point, fault)
        self.count["kill" if fault == "KILL" else "error"] += 1
        for problem in self._problems(root, point, fault, ran):
            self.wrong.append(f"{fault} at {point}: {problem}")

    def _problems(
        self, root: Path, point: Point, fault: str, ran: subprocess.CompletedProcess[str]
    ) -> Iterator[str]:
        for found in checker.faults(root / "store"):
            if (point.verb, found) != ("mend", "checkout without k1"):  # it begins with that
                yield found
        said_done = ran.stdout == "done\n"
        self.count["done" if said_done else "stopped"] += 1
        if fault != "KILL" and not said_done and not ran.stdout.startswith("typed "):
            yield f"no typed error: {ran.stdout}{ran.stderr[-600:]}"
        if fault == "KILL" and ran.returncode not in {-9, 137} and point.call != "write":
            yield f"was not killed: {ran.returncode} {ran.stdout}{ran.stderr[-300:]}"
        world = verbs.World(root)
        if said_done:
            yield from (f"said done, but: {p}" for p in unfinished(world, point.verb))
        try:
            verbs.VERBS[point.verb](world)
        except Exception as error:  # noqa: BLE001 - any failure is a finding
            yield f"run again: {error!r}"
        yield from unfinished(world, point.verb)
        yield from checker.faults(root / "store")
        release_all()
        yield from leftovers(root)


def unfinished(world: verbs.World, verb: str) -> Iterator[str]:
    """Yield what the operation should have made of the world and did not."""
    objects = world.root / "store" / "objects" / "sha256"
    has = {path.name for path in objects.glob("*/*")}

    def sha(name: str, size: int = 1500) -> str:
        return hashlib.sha256(verbs.data(name, size)).hexdigest()

    wanted = {"put": [sha("outside", 2_500_000)], "put_tree": [sha("a"), sha("b/t")],
              "checkout": [sha("a"), sha("b/t")], "remove_ref": [], "mend": [],
              "gc": [sha("k0"), sha("k1"), sha("linked"), sha("acted")],
              "link": [sha("new"), sha("newer")]}.get(verb, [sha("new")])  # fmt: skip
    yield from (f"object {digest} is missing" for digest in wanted if digest not in has)
    if verb == "gc":
        yield from (f"garbage {n} is there" for n in ("d0", "d1", "d2", "lost") if sha(n) in has)
        if list((world.root / "store" / "trees").glob("*/dropped")):
            yield "a dead checkout is there"
    files = {"link": ["models/deep/new.gguf"], "put_ref": ["store/refs/other/2.json"],
             "checkout": ["store/trees/*/new/b/t"], "mend": ["store/trees/*/kept/k1"],
             }.get(verb, [])  # fmt: skip
    yield from (f"{name} is missing" for name in files if not list(world.root.glob(name)))
    linked = (world.models / "linked.gguf").read_bytes()
    if linked != verbs.data("newer" if verb == "link" else "linked"):
        yield "the model file is not the one that was linked"
    if (world.root / "store/refs/model/1.json").exists() == (verb == "remove_ref"):
        yield "the release is there, or gone, by mistake"


def leftovers(root: Path) -> Iterator[str]:
    """Yield what a killed process left: the next opening must have swept it.

    A temporary file beside its target outside of the store waits for a day.
    """
    for folder in ("staging", "trash", "leases"):
        yield from (f"left over: {path}" for path in (root / "store" / folder).iterdir())


def _relink(root: Path) -> None:
    """Make hard links again of what the copy made two files of."""
    by_bytes = {path.name: path for path in (root / "store/objects/sha256").glob("*/*")}
    model = root / "models" / "linked.gguf"
    model.unlink()
    os.link(by_bytes[hashlib.sha256(verbs.data("linked")).hexdigest()], model)


def sample(points: list[tuple[Point, str]], count: int | None) -> list[tuple[Point, str]]:
    """Return `count` of the points, evenly spread over all of them."""
    if count is None or count >= len(points):
        return points
    return [points[i * len(points) // count] for i in range(count)]


def run(tool: Strace | Seam, names: Sequence[str], kills: int | None, errors: int | None) -> Sweep:
    """Sweep in a scratch folder; `None` is every point there is."""
    with tempfile.TemporaryDirectory() as scratch:
        return _run_all(Sweep(Path(scratch), tool), names, kills, errors)


def _run_all(sweep: Sweep, names: Sequence[str], kills: int | None, errors: int | None) -> Sweep:
    killing = [(p, "KILL") for p in sweep.points(names, CHANGING)] if kills != 0 else []
    failing = (
        [(p, e) for p in sweep.points(names, CHANGING + LOOKING) for e in ERRORS]
        if errors != 0
        else []
    )
    todo = sample(killing, kills) + sample(failing, errors)
    for done, (point, fault) in enumerate(todo, 1):
        sweep.try_point(point, fault)
        if done % 200 == 0:
            print(
                f"{done} of {len(todo)}, {len(sweep.wrong)} findings", file=sys.stderr, flush=True
            )
    return sweep


def main() -> int:
    """Sweep, and print what was found and how much was tried."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, help="how many kill points (all)")
    parser.add_argument("--errors", type=int, help="how many injected errors (all)")
    parser.add_argument("--verb", action="append", choices=verbs.VERBS, help="only this operation")
    parser.add_argument("--seam", action="store_true", help="without strace")
    options = parser.parse_args()
    started = time.monotonic()
    tool = Seam() if options.seam or not has_strace() else Strace()
    sweep = run(tool, options.verb or list(verbs.VERBS), options.kills, options.errors)
    for problem in sweep.wrong:
        print(problem)
    print(
        f"{tool.name}: {sweep.count['kill']} kill points, {sweep.count['error']} injected errors "
        f"({sweep.count['done']} came through), {len(sweep.wrong)} findings, "
        f"{time.monotonic() - started:.0f} s"
    )
    return 1 if sweep.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
