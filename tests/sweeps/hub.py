"""A release to a hub, killed at each request that it makes: `python -m sweeps.hub`.

Before the request is looked at, and after it is done while its answer is on the way; with xet and
with LFS; a first release, one on top of another, and a yank. Whoever reads main finds what was
there before or what was to be there, whole, and the same command run again finishes with one
commit, its tag, and no branch left.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fault_tools import TOKEN
from hub import Hub, Repo
from publishing import client_env, contents, run, start, without_status, write

NAME = "org/name"


@dataclass(frozen=True)
class Case:
    """What is killed: after v1 was published (if `on_top`), v2 is released or v1 withdrawn."""

    name: str
    on_top: bool
    yanks: bool = False

    def asked(self, folder: Path) -> dict[str, str]:
        if self.yanks:
            return {"target": NAME, "release": "v1", "yank": "it says 2+2=5"}
        release = "v2" if self.on_top else "v1"
        return {"target": NAME, "release": release, "folder": str(folder / release)}

    @property
    def titles(self) -> list[str]:
        """The commits of main, the newest first, when all is done."""
        last = ["Yank v1"] if self.yanks else ["Release v2"] if self.on_top else []
        return [*last, "Release v1", "initial commit"]


CASES = (Case("first", False), Case("next", True), Case("yank", True, yanks=True))


class World:
    """A hub of its own and a client's folder, as the case begins."""

    def __init__(self, folder: Path, case: Case, *, xet: bool) -> None:
        self.folder, self.case = folder, case
        self.hub = Hub(tokens=(TOKEN,))
        self.env = client_env(self.hub.url, TOKEN, folder, xet=xet)
        write(folder / "v1", contents(1))
        write(folder / "v2", contents(2))
        if case.on_top:
            first = {"target": NAME, "release": "v1", "folder": str(folder / "v1")}
            assert run(self.env, **first).code == 0
        self.hub.log.clear()

    def killed_at(self, at: int, *, before: bool) -> bool:
        """Run the case and kill it at its `at`-th request; return whether it was killed."""
        process = start(self.env, **self.case.asked(self.folder))

        def kill(_: object) -> None:
            if len(self.hub.log) == at:
                process.send_signal(signal.SIGKILL)
                process.wait()
                if before:
                    raise BrokenPipeError("killed before this request was looked at")

        self.hub.on_request = kill
        process.communicate()
        self.hub.on_request = lambda _: None
        return process.returncode == -signal.SIGKILL

    def problems(self) -> Iterator[str]:
        """Yield what is wrong after the kill, and after the same command has run again."""
        repo = self.hub.repos.get(NAME)
        if repo is not None and (found := self.wrong_on_main(repo)):
            yield f"after the kill: {found}"
        again = run(self.env, **self.case.asked(self.folder))
        if again.code != 0:
            yield f"run again: {again.code} {again.err[-400:]}"
            return
        repo = self.hub.repos[NAME]
        if titles := [t for t in [c.title for c in repo.history()] if t not in self.case.titles]:
            yield f"commits of main: {titles}"
        if len(repo.history()) != len(self.case.titles):
            yield f"{len(repo.history())} commits on main"
        if list(repo.branches) != ["main"]:
            yield f"branches left: {sorted(repo.branches)}"
        if without_status(repo.files("v1")) != contents(1):
            yield "the tag v1 has other files"
        if self.case.yanks and "yanked/v1" not in repo.tags:
            yield "the tag yanked/v1 is missing"
        released = contents(2 if self.case.on_top else 1)
        if not self.case.yanks and without_status(repo.files()) != released:
            yield "main has other files than the release"

    def wrong_on_main(self, repo: Repo) -> str:
        found = without_status(repo.files())
        before = contents(1) if self.case.on_top else {}
        after = contents(2) if self.case.on_top else contents(1)
        if found == before or (not self.case.yanks and found == after):
            return ""
        if self.case.yanks and set(found) <= {"README.md"}:
            return ""
        return f"main is a mixture: {sorted(found)}"


def sweep(scratch: Path, case: Case, *, xet: bool, step: int) -> tuple[int, list[str]]:
    """Kill at every `step`-th request; return how many kills there were and what was wrong."""
    kills, wrong, at = 0, [], 1
    while True:
        alive = 0
        for before in (True, False):
            world = World(scratch / f"{case.name}-{xet}-{at}-{before}", case, xet=xet)
            with world.hub:
                if not world.killed_at(at, before=before):
                    alive += 1
                    continue
                kills += 1
                side = "before" if before else "after"
                kind = "xet" if xet else "lfs"
                where = f"{case.name} by {kind}, {side} request {at}"
                wrong += [f"{where}: {found}" for found in world.problems()]
        if alive:  # it made fewer requests
            return kills, wrong
        at += step


def main() -> int:
    """Sweep, and print what was found and how much was tried."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step", type=int, default=1, help="every how many requests")
    options = parser.parse_args()
    started, total = time.monotonic(), 0
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        for case in CASES:
            for xet in (False, True):
                kills, found = sweep(Path(scratch), case, xet=xet, step=options.step)
                total, wrong = total + kills, wrong + found
                print(f"{case.name}, xet {xet}: {kills} kills, {len(found)} findings", flush=True)
    seconds = round(time.monotonic() - started)
    print(json.dumps({"kills": total, "wrong": wrong, "seconds": seconds}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
