"""The bar as people see it: on terminals of several widths, over all long work, never in a pipe."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fault_tools import TOKEN, know_only
from hub import Hub
from pulling import MODEL, OWNER, REPO, TITLE, Publisher, model_bytes, serve, to_folder
from quantmint.home import Home
from quantmint.registry import bar as bars
from quantmint.registry.bar import Bar, fitted
from quantmint.registry.transfer import Progress
from quantmint.registry.trust_root import TrustRoot
from quantmint.watching import naming, note, watched
from terminal import Terminal

Q8 = f"{TITLE}-Q8_0.gguf"
# The command line, with a bar over work that does not take long, too.
AT_ONCE = """
import runpy
from quantmint.registry import bar
bar.QUIET = 0.0
runpy.run_module("quantmint", run_name="__main__")
"""


@pytest.fixture
def env(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    publisher = Publisher(tmp_path / "publisher")
    TrustRoot(home.keys).trust(publisher.key.public, (f"{OWNER}/*",))
    files = publisher.files(1, {"Q8_0": model_bytes((1, 2, 3), rows=100_000)})
    to_folder(tmp_path / "registry", files, "v1", tmp_path / "work")
    monkeypatch.delenv("COLUMNS", raising=False)
    return {**os.environ, "QUANTMINT_HOME": str(home.root)}


def watched_run(env: dict[str, str], columns: int, *words: str) -> list[str]:
    """Run a command on a terminal of that width; return each state of its bar."""
    command = [sys.executable, "-c", AT_ONCE, *words]
    with Terminal(command, env, columns) as terminal:
        assert terminal.code() == 0, terminal.said
    return states(terminal.said)


def states(said: str) -> list[str]:
    """Return what was written after each return to the begin of a line, and was left again."""
    return [state for line in said.split("\r\n") for state in line.split("\r")[1:-1]]


def drawn(found: list[str], doing: str) -> list[str]:
    return [state for state in found if state.startswith(doing)]


@pytest.mark.parametrize("columns", [40, 80, 100, 200])
def test_no_line_wraps(env: dict[str, str], home: Home, tmp_path: Path, columns: int) -> None:
    """Copying, hashing, verifying, writing and reading archives, each with its rate."""
    ref, archive = f"file:{tmp_path / 'registry'}", str(tmp_path / f"{'x' * 120}.tar")
    seen = []
    for words, doing in (
        (["pull", ref], "hashing" if columns > 40 else "..."),
        (["verify", MODEL], "hashing"),
        (["verify"], "hashing"),
        (["export", MODEL, "-o", archive], "writing x" if columns > 140 else "...x"),
        (["rm", MODEL], ""),
        (["import", archive], "reading " if columns > 40 else "..."),
    ):
        found = watched_run(env, columns, *words)
        seen += found
        if doing:
            assert drawn(found, doing), (words, found)
            assert any(re.search(r" [0-9.]+ [kMG]?B/s", state) for state in found), found
    assert max(map(len, seen)) < columns
    if columns == 200:
        assert any(f"hashing {Q8}" in state for state in seen)
        assert any(f"copying {Q8}" in state for state in seen) or any(
            f"reading {Q8}" in state for state in seen
        )
        assert any("100% of 10.2 MB" in state for state in seen)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub(tokens=(TOKEN,)) as running:
        know_only(running.url, tmp_path, monkeypatch)
        yield running


def test_a_transfer_is_as_wide_as_the_terminal_is_now(
    hub: Hub, env: dict[str, str], tmp_path: Path
) -> None:
    publisher = Publisher(tmp_path / "others")
    long = f"{'a-very-long-name-' * 6}Q8_0.gguf"
    hub.add("somebody/long").commit({long: model_bytes((1, 2, 3), rows=100_000)})
    serve(hub.add(REPO), publisher.files(1), 1)
    command = [sys.executable, "-m", "quantmint", "pull", "somebody/long", "--rate", "2MB"]
    env = {**os.environ, **env, "HF_ENDPOINT": hub.url}
    with Terminal(command, env, 200) as terminal:
        terminal.wait("B/s", 60)
        terminal.wait(" left")
        terminal.wait("\r")  # what it wrote is left again: a whole state to be looked at
        wide = len(terminal.said)
        terminal.resize(60)
        time.sleep(0.4)
        terminal.wait("B/s")
        narrow = len(terminal.said)
        terminal.resize(40)
        assert terminal.code() == 0
    early, late = states(terminal.said[:wide]), states(terminal.said[narrow + 200 :])
    assert max(map(len, early)) > 100
    assert max(map(len, late)) < 60
    assert any(len(state) < 40 and "B/s" in state and "left" in state for state in late)
    assert any(long in state for state in early)
    assert any("Q8_0.gguf" in state for state in late)


def test_in_a_pipe_there_is_no_bar(env: dict[str, str], tmp_path: Path) -> None:
    ref, archive = f"file:{tmp_path / 'registry'}", str(tmp_path / "x.tar")
    for words in (["pull", ref], ["verify", MODEL], ["export", MODEL, "-o", archive],
                  ["rm", MODEL], ["import", archive]):  # fmt: skip
        ran = subprocess.run([sys.executable, "-c", AT_ONCE, *words], env={**env, "COLUMNS": "80"},
                             capture_output=True, text=True, check=False)  # fmt: skip
        assert (ran.returncode, ran.stderr) == (0, ""), words
        assert "\r" not in ran.stdout


def test_short_work_is_not_shown(env: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "quantmint", "pull", f"file:{tmp_path / 'registry'}"]
    with Terminal(command, env, 80) as terminal:
        assert terminal.code() == 0
    assert states(terminal.said) == []


def test_work_is_shown_once_it_takes_a_second() -> None:
    stream = io.StringIO()
    bar = Bar(stream)
    with watched(bar.work), naming("m-Q8_0.gguf"):
        note("hashing", "object", 1 << 20, 100 << 20)
        assert stream.getvalue() == ""
        time.sleep(bars.QUIET + 0.05)
        note("hashing", "object", 50 << 20, 100 << 20)
        shown = stream.getvalue()
        assert re.search(r"^\rhashing m-Q8_0\.gguf   50% of 104\.9 MB  [0-9.]+ MB/s  0:0[01] left",
                         shown + " left"), shown  # fmt: skip
        bar.end()
    assert stream.getvalue().rpartition("\r")[2] == ""
    note("hashing", "object", 60 << 20, 100 << 20)  # nobody watches any more
    assert stream.getvalue().startswith(shown)


@pytest.mark.parametrize("width", [9, 20, 39, 60, 79, 99, 199])
def test_what_has_room_is_told(width: int) -> None:
    facts = ["  9% of 2.4 GB", "112.0 MB/s", "1:02:03 left", "(1.2 GB were here)"]
    name = "deep/folder/Phi-3.5-mini-instruct-Q4_K_M.gguf"
    line = fitted(name, facts, width)
    assert len(line) <= width
    assert "9%" in line
    assert ("left" in line) is (width >= 39)
    assert ("of 2.4 GB" in line) is (width >= 60)
    assert ("were here" in line) is (width >= 79)
    assert (name in line) is (width >= 110)
    assert width < 39 or line.partition("  ")[0].endswith(".gguf")


def test_a_reused_part_is_told() -> None:
    stream = io.StringIO()
    bar = Bar(stream)
    bar(Progress(path="m.gguf", size=100, done=50, fetched=20, reused=30, rate=10.0, left=5.0))
    assert stream.getvalue() == "\rm.gguf   50% of 100 B  10 B/s  0:05 left  (30 B were here)"
