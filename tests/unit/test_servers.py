"""Servers that are kept running, and found with all their children by a mark."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from helpers import gone
from kills.service import free_port
from quantmint.errors import BuildError, UserError
from quantmint.home import Home
from quantmint.pipelines import loopback
from quantmint.pipelines.only_one import only_one
from quantmint.pipelines.servers import MOST_RESTARTS, Program, Server
from quantmint.pipelines.strays import end, find, left_behind, of_service, service_id

# A server with a child in a session of its own, as a killed Dagster would leave one.
SERVER = """
import http.server, pathlib, subprocess, sys
code = "import time; time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
pathlib.Path(sys.argv[2]).write_text(str(child.pid))
print("serving", flush=True)
http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind="127.0.0.1")
"""


class Kept:
    """A server, what it said, and the id of its child."""

    def __init__(self, folder: Path, code: str) -> None:
        port = free_port()
        self.said: list[str] = []
        self.child_file = folder / "child"
        program = Program(
            name="Test",
            argv=[sys.executable, "-c", code, str(port), str(self.child_file)],
            env=dict(os.environ),
            cwd=folder,
            url=f"http://127.0.0.1:{port}",
            log=folder / "test.log",
        )
        self.server = Server(program, service_id(), self.said.append)
        self.server.start()

    def tend_until(self, times: int) -> None:
        """Tend the server until it said so many things."""
        deadline = time.monotonic() + 60
        while len(self.said) < times:
            assert time.monotonic() < deadline, self.said
            self.server.tend()
            time.sleep(0.02)

    def kill(self) -> int:
        """Kill the server alone; return its child's id."""
        assert self.server.process is not None
        child = int(self.child_file.read_text())
        os.kill(self.server.process.pid, signal.SIGKILL)
        self.server.process.wait()
        return child


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    kept = Kept(tmp_path, SERVER)
    yield kept
    kept.server.ask_to_stop()
    kept.server.stop(0.5)
    assert list(find(of_service(service_id()))) == []


def test_a_killed_server_is_started_again_without_its_old_children(kept: Kept) -> None:
    kept.tend_until(1)
    child = kept.kill()
    kept.tend_until(3)
    url = kept.server.program.url
    assert kept.said == [
        f"Test: {url}", "Test was ended by SIGKILL: starting it again", f"Test: {url}",
    ]  # fmt: skip
    assert gone(child)
    assert kept.server.program.log.read_text().count("serving") == 2


def test_a_server_that_ends_again_and_again_is_given_up(kept: Kept) -> None:
    for turn in range(MOST_RESTARTS):
        kept.tend_until(2 * turn + 1)
        kept.kill()
    kept.tend_until(2 * MOST_RESTARTS + 1)
    kept.kill()
    with pytest.raises(BuildError, match=rf"Test .* {MOST_RESTARTS + 1} times") as caught:
        kept.server.tend()
    assert "serving" in caught.value.what
    assert str(kept.server.program.log) in str(caught.value.mend)


def test_a_server_that_does_not_start_is_not_started_again(tmp_path: Path) -> None:
    kept = Kept(tmp_path, "import sys; sys.exit('no such database')")
    with pytest.raises(BuildError, match="Test failed with exit code 1") as caught:
        kept.tend_until(1)
    assert "no such database" in caught.value.what


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that a service of this home left, whose process id means nothing now."""
    env = {**os.environ, "QUANTMINT_HOME": str(tmp_path), "QUANTMINT_SERVICE": "1-1:Test"}
    words = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]
    process = subprocess.Popen(words, env=env, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def test_what_a_dead_service_left_is_found_by_its_home(
    tmp_path: Path, stranger: subprocess.Popen[bytes]
) -> None:
    assert list(find(left_behind(tmp_path / "another"))) == []
    assert list(find(left_behind(tmp_path))) == [stranger.pid]
    assert list(find(of_service(service_id()))) == []
    assert end(left_behind(tmp_path)) == 1
    assert stranger.wait(5) == -signal.SIGKILL


HOLD = """
import sys
from pathlib import Path
from quantmint.home import Home
from quantmint.pipelines.only_one import only_one
from quantmint.pipelines.strays import service_id
with only_one(Home(Path(sys.argv[1])), service_id(), {"Dagster": "http://127.0.0.1:4000"}):
    print("serves", flush=True)
    sys.stdin.read()
"""


def test_one_service_for_a_home_until_it_is_killed(tmp_path: Path) -> None:
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert first.stdout is not None
    assert first.stdout.readline() == b"serves\n"
    with (
        pytest.raises(UserError, match=rf"process {first.pid}: Dagster http://127.0.0.1:4000"),
        only_one(Home(tmp_path), service_id(), {}),
    ):
        pass
    with only_one(Home(tmp_path / "another"), service_id(), {}):
        pass
    first.kill()
    first.communicate()
    with only_one(Home(tmp_path), service_id(), {}):
        pass


def test_our_own_servers_are_never_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        answering = threading.Thread(target=server.handle_request)
        answering.start()
        with pytest.raises(urllib.error.HTTPError) as answered:  # it knows no GET, and says so
            loopback.ask(f"http://127.0.0.1:{server.server_port}", 10)
        answered.value.close()
        answering.join()
    assert answered.value.code == 501
