"""Heavy work and measurements of speed keep apart, between processes, however these end."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from quantmint.errors import BugError
from quantmint.home import Home
from quantmint.quiet import FOR_SPEED, FOR_WORK, heavy, quiet

HOLD = """
import sys
from pathlib import Path
from quantmint.home import Home
from quantmint.quiet import heavy, quiet
with {kind}(Home(Path(sys.argv[1])), lambda line: print(line, flush=True)):
    print("has it", flush=True)
    sys.stdin.read()
"""


class Holder:
    """Another process that holds the machine until it is told to end."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD.format(kind=kind), str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def holding(folder: Path, kind: str) -> Iterator[Holder]:
    holder = Holder(folder, kind)
    try:
        yield holder
    finally:
        holder.end()


def in_thread(home: Home, kind: str, said: list[str]) -> tuple[threading.Thread, threading.Event]:
    """Ask for the machine in a thread, which says what it waits for and when it got it."""
    waits, take = threading.Event(), {"heavy": heavy, "quiet": quiet}[kind]

    def report(line: str) -> None:
        said.append(line)
        waits.set()

    def run() -> None:
        with take(home, report):
            said.append("got it")

    thread = threading.Thread(target=run)
    thread.start()
    return thread, waits


@pytest.mark.parametrize(
    ("first", "second", "words"), [("heavy", "quiet", FOR_SPEED), ("quiet", "heavy", FOR_WORK)]
)
def test_one_waits_for_the_other_until_it_is_killed(
    tmp_path: Path, first: str, second: str, words: str
) -> None:
    said: list[str] = []
    with holding(tmp_path, first) as holder:
        assert holder.hear() == "has it"
        thread, waits = in_thread(Home(tmp_path), second, said)
        assert waits.wait(20)
        thread.join(0.2)
        assert said == [words]
    thread.join(20)
    assert said == [words, "got it"]


def test_heavy_work_shares_the_machine(tmp_path: Path) -> None:
    said: list[str] = []
    with holding(tmp_path, "heavy") as holder:
        assert holder.hear() == "has it"
        with heavy(Home(tmp_path), said.append), heavy(Home(tmp_path), said.append):
            assert said == []


def test_work_that_comes_later_does_not_go_before_a_waiting_measurement(tmp_path: Path) -> None:
    said: list[str] = []
    with holding(tmp_path, "heavy") as first:
        assert first.hear() == "has it"
        thread, waits = in_thread(Home(tmp_path), "quiet", said)
        assert waits.wait(20)
        with holding(tmp_path, "heavy") as later:
            assert later.hear() == FOR_WORK
            first.end()
            thread.join(20)
            assert said == [FOR_SPEED, "got it"]
            assert later.hear() == "has it"


def test_a_block_inside_a_block_asks_for_nothing(tmp_path: Path) -> None:
    """Else it would wait for the measurement, and that for it."""
    said: list[str] = []
    with heavy(Home(tmp_path), print):
        thread, waits = in_thread(Home(tmp_path), "quiet", said)
        assert waits.wait(20)
        with heavy(Home(tmp_path), said.append):
            assert said == [FOR_SPEED]
    thread.join(20)
    assert said == [FOR_SPEED, "got it"]


def test_a_measurement_inside_heavy_work_is_a_bug(tmp_path: Path) -> None:
    with heavy(Home(tmp_path), print), pytest.raises(BugError), quiet(Home(tmp_path), print):
        pass
    with quiet(Home(tmp_path), print):
        pass
