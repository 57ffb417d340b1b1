"""The server as a process: what it answers, to whom, and how it stops."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fault_tools import TOKEN
from helpers import Ran, run_in, with_template
from quantmint.home import Home

pytestmark = [pytest.mark.native, pytest.mark.e2e]
NAME = "phi-3-nano:Q4_K_M"
ASKED = {"max_tokens": 12, "temperature": 0}
SAID = "Where is the library?"


@dataclass
class Server:
    """A running server: its process, its address, and what it said on standard error."""

    process: subprocess.Popen[str]
    url: str
    log: Path

    def ask(self, path: str, value: object = None, **headers: str) -> Any:
        with self.open(path, value, **headers) as answer:
            return json.load(answer)

    def open(self, path: str, value: object = None, **headers: str) -> Any:
        data = None if value is None else json.dumps(value).encode()
        headers = {"Content-Type": "application/json", **headers}
        request = urllib.request.Request(self.url + path, data, headers)
        return urllib.request.urlopen(request, timeout=120)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2].partition("/")[0])


@contextmanager
def serving(home: Home, ref: str, log: Path) -> Iterator[Server]:
    env = {**os.environ, "QUANTMINT_HOME": str(home.root), "OMP_WAIT_POLICY": "PASSIVE",
           "HF_TOKEN": TOKEN}  # fmt: skip
    words = [sys.executable, "-m", "quantmint", "serve", ref, "--port", "0", "--context", "512"]
    with (
        log.open("w") as err,
        subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=err, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url.startswith("http://127.0.0.1:"), log.read_text()
            yield Server(process, url, log)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def server(
    nano: tuple[Home, Ran], nano_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("serve") / "err"
    with serving(nano[0], f"file:{nano_file}:Q4_K_M", log) as running:
        yield running


def test_the_model_is_listed(server: Server) -> None:
    (row,) = server.ask("/models")["data"]
    assert row["id"] == NAME


def test_a_prompt_goes_through_the_models_own_template(server: Server) -> None:
    messages = [{"role": "user", "content": SAID}]
    chat = server.ask("/chat/completions", {"messages": messages, "model": NAME, **ASKED})
    said = chat["choices"][0]["message"]["content"]
    assert said
    rendered = f"<|user|>\n{SAID}<|end|>\n<|assistant|>\n"
    plain = server.ask("/completions", {"prompt": rendered, **ASKED})
    assert plain["choices"][0]["text"] == said
    assert plain["usage"]["prompt_tokens"] == chat["usage"]["prompt_tokens"]
    bare = server.ask("/completions", {"prompt": SAID, **ASKED})
    assert bare["usage"]["prompt_tokens"] < chat["usage"]["prompt_tokens"]
    assert chat["model"] == NAME


def test_an_answer_comes_in_pieces_where_that_is_asked(server: Server) -> None:
    body = {"messages": [{"role": "user", "content": SAID}], **ASKED}
    whole = server.ask("/chat/completions", body)["choices"][0]["message"]["content"]
    with server.open("/chat/completions", {**body, "stream": True}) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        lines = [line.decode().strip() for line in answer]
    events = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events[:-1]]
    pieces = [delta["content"] for delta in deltas if delta.get("content")]
    assert len(pieces) > 1
    assert "".join(pieces) == whole


def test_without_a_template_only_plain_text_is_completed(
    nano: tuple[Home, Ran], nano_file: Path, tmp_path: Path
) -> None:
    folder = with_template(nano_file / "Phi-3-nano-Q4_K_M.gguf", tmp_path / "bare", None)
    with serving(nano[0], f"file:{folder}", tmp_path / "err") as running:
        plain = running.ask("/completions", {"prompt": SAID, **ASKED})
        assert plain["choices"][0]["text"]
        with pytest.raises(urllib.error.HTTPError) as refused:
            running.ask("/chat/completions", {"messages": [{"role": "user", "content": SAID}]})
        assert refused.value.code >= 400
        assert "the model has no chat template" in refused.value.read().decode()
        assert "/v1/chat/completions is refused" in running.log.read_text()


def test_only_this_machine_is_answered(server: Server) -> None:
    with pytest.raises(urllib.error.HTTPError, match="400"):
        server.ask("/models", Host="evil.example")
    with server.open("/models", Origin="https://evil.example") as answer:
        assert answer.headers.get("Access-Control-Allow-Origin") is None
    assert _listens_on(server.process.pid, server.port) == {"0100007F"}  # 127.0.0.1


def _listens_on(pid: int, port: int) -> set[str]:
    """Return the addresses on which that port is listened to, as /proc spells them."""
    found = set()
    for name in ("tcp", "tcp6"):
        rows = Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
        for _, local, _, state, *_ in (row.split() for row in rows):
            host, _, at = local.rpartition(":")
            if int(at, 16) == port and state == "0A":
                found.add(host)
    return found


def test_a_port_that_is_taken(server: Server, nano: tuple[Home, Ran], nano_file: Path) -> None:
    ref = f"file:{nano_file}:Q4_K_M"
    ran = run_in(nano[0], "serve", ref, "--port", str(server.port))
    assert (ran.code, ran.out) == (2, "")
    assert f"port {server.port} can't be served on: Address already in use" in ran.err
    assert "--port 0" in ran.err


def test_its_process_has_no_secret(server: Server) -> None:
    environ = Path(f"/proc/{server.process.pid}/environ").read_bytes()
    assert TOKEN.encode() not in environ
    assert TOKEN.encode() not in Path(f"/proc/{server.process.pid}/cmdline").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_when_it_is_told(
    nano: tuple[Home, Ran], nano_file: Path, tmp_path: Path, number: signal.Signals
) -> None:
    with serving(nano[0], f"file:{nano_file}:Q4_K_M", tmp_path / "err") as running:
        assert running.ask("/models")["data"]
        running.process.send_signal(number)
        assert running.process.wait(30) == 0
        assert running.log.read_text().count("Traceback") == 0
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", running.port))
