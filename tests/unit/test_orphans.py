"""A step ends with its run worker or its fork server, and its native children with it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from helpers import gone

# A run worker that has a step forked, as Dagster's executor does; the step runs a tool.
WORKER = """
import multiprocessing, os, sys, threading
from quantmint.orphans import end_with_parent, is_step
from quantmint.process import Command, run

def step(watch):
    assert is_step()
    if watch:
        end_with_parent()
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    def tell(line):
        print("pids", os.getppid(), os.getpid(), line, flush=True)
    run(Command(argv=[sys.executable, "-c", code]), on_line=tell)

if __name__ == "__main__":
    assert not is_step()
    end_with_parent()  # nothing happens: this process is no step
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=step, args=(sys.argv[1] == "watch",))
    process.start()
    process.join()
    print("ended", process.exitcode, flush=True)
    sys.stdin.read()
"""


class Tree:
    """A run worker, its fork server, a step and the step's tool."""

    def __init__(self, folder: Path, watch: str) -> None:
        script = folder / "worker.py"
        script.write_text(WORKER)
        self.worker = subprocess.Popen(
            [sys.executable, str(script), watch],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        word, *pids = self.line()
        assert word == "pids"
        self.server, self.step, self.tool = map(int, pids)

    def line(self) -> list[str]:
        assert self.worker.stdout is not None
        return self.worker.stdout.readline().split()

    def end(self) -> None:
        for pid in (self.step, self.tool):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.worker.kill()
        self.worker.communicate()


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    tree = Tree(tmp_path, "watch")
    yield tree
    tree.end()


def test_killing_the_worker_ends_the_step_and_its_tool(tree: Tree) -> None:
    tree.worker.kill()
    assert gone(tree.step)
    assert gone(tree.tool)
    assert gone(tree.server)


def test_killing_the_fork_server_ends_the_step_and_its_tool(tree: Tree) -> None:
    """The worker takes the step for ended at that moment, and may start another one."""
    os.kill(tree.server, signal.SIGKILL)
    assert gone(tree.step)
    assert gone(tree.tool)
    assert tree.line()[0] == "ended"


def test_killing_the_step_ends_its_tool(tree: Tree) -> None:
    os.kill(tree.step, signal.SIGKILL)
    assert gone(tree.tool)
    assert tree.line() == ["ended", "-9"]


def test_without_the_watch_a_step_lives_on(tmp_path: Path) -> None:
    """What the watch is for: the day it fails, Dagster ends its steps itself."""
    tree = Tree(tmp_path, "no watch")
    tree.worker.kill()
    assert not gone(tree.step, 1)
    tree.end()
