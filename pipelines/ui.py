"""The web pages: Dagster's and MLflow's servers as children of one process, on loopback only."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from quantmint.assets.tracking import tracking_uri
from quantmint.errors import BuildError, UserError
from quantmint.home import Home
from quantmint.pipelines.instance import open_instance

LOOPBACK: Final = "127.0.0.1"
START_SECONDS: Final = 180
STOP_SECONDS: Final = 20


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the two pages are served."""

    dagster: int
    mlflow: int


@dataclass(frozen=True, slots=True)
class Server:
    """One child: its process, its page and its log."""

    name: str
    process: subprocess.Popen[bytes]
    url: str
    log: Path


def serve(home: Home, ports: Ports, say: Callable[[str], None]) -> None:
    """Start both pages, say where they are, and serve until SIGINT or SIGTERM.

    Raises:
        UserError: a port is taken.
        BuildError: a server ended by itself.
    """
    for port in (ports.dagster, ports.mlflow):
        _require_free(port)
    # Opened once before several processes use it: their first start at the same time can clash.
    open_instance(home).dispose()
    stopping: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        stopping.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    servers: list[Server] = []
    try:
        servers += _start_all(home, ports)
        for server in servers:
            _wait_until_up(server, stopping)
            if not stopping:
                say(f"{server.name}: {server.url}")
        if not stopping:
            say("stop with Ctrl-C")
        while not stopping:
            _require_alive(servers)
            time.sleep(0.5)
    finally:
        _stop_all(servers)
    say("stopped")


def _start_all(home: Home, ports: Ports) -> list[Server]:
    home.logs.mkdir(parents=True, exist_ok=True)
    home.mlflow.mkdir(parents=True, exist_ok=True)
    urls = {
        "QUANTMINT_DAGSTER_URL": f"http://{LOOPBACK}:{ports.dagster}",
        "QUANTMINT_MLFLOW_URL": f"http://{LOOPBACK}:{ports.mlflow}",
    }
    env = {**os.environ, **urls, "QUANTMINT_HOME": str(home.root), "PYTHONUNBUFFERED": "1"}
    dagster = [
        sys.executable, "-m", "dagster", "dev", "--host", LOOPBACK, "--port", str(ports.dagster),
        "--module-name", "quantmint.pipelines.definitions",
    ]  # fmt: skip
    mlflow = [
        sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(ports.mlflow),
        "--backend-store-uri", tracking_uri(home), "--workers", "1",
        "--default-artifact-root", (home.mlflow / "artifacts").as_uri(), "--no-serve-artifacts",
    ]  # fmt: skip
    return [
        _start("Dagster", dagster, env, urls["QUANTMINT_DAGSTER_URL"], home),
        _start("MLflow", mlflow, env, urls["QUANTMINT_MLFLOW_URL"], home),
    ]


def _start(name: str, argv: Sequence[str], env: Mapping[str, str], url: str, home: Home) -> Server:
    log = home.logs / f"{name.lower()}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv,
            cwd=home.root,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # Dagster stops on SIGTERM only if SIGINT is not ignored, as it is under a shell's `&`.
            preexec_fn=_heed_interrupts,  # noqa: PLW1509
        )
    return Server(name, process, url, log)


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _wait_until_up(server: Server, stopping: Sequence[int]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not stopping:
        _require_alive([server])
        try:
            with urllib.request.urlopen(server.url, timeout=5):  # noqa: S310 - our own loopback
                return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise BuildError(
                    f"{server.name} did not answer within {START_SECONDS} s",
                    mend=f"read {server.log}",
                ) from None
            time.sleep(0.3)


def _require_alive(servers: Sequence[Server]) -> None:
    for server in servers:
        code = server.process.poll()
        if code is not None:
            tail = server.log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]
            raise BuildError(
                f"{server.name} ended by itself with exit code {code}\n    " + "\n    ".join(tail),
                mend=f"read {server.log}",
            )


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise UserError(
                f"port {port} of {LOOPBACK} is taken: {error.strerror}",
                mend="stop what uses it (another `quantmint ui`?), or name others: "
                "quantmint ui --port N --mlflow-port M",
            ) from None


def _stop_all(servers: Sequence[Server]) -> None:
    """Ask each server to stop, then end what is left of its process group."""
    for server in servers:
        if server.process.poll() is None:
            server.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    for server in servers:
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.process.wait(max(0.1, deadline - time.monotonic()))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()
