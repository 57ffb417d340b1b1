"""The web pages: Dagster's and MLflow's servers under one process, on loopback only.

That process starts a server again that ended, and a guard sees to it that nothing is left if the
process itself is killed. A run that is cut off with its service is failed at the next start, and
tried again from what the store has.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Final

from quantmint.assets.tracking import tracking_server, tracking_uri
from quantmint.errors import UserError
from quantmint.home import Home
from quantmint.pipelines.code_location import reload_all, reload_if_gone
from quantmint.pipelines.instance import open_instance
from quantmint.pipelines.only_one import only_one
from quantmint.pipelines.reaper import reap
from quantmint.pipelines.servers import STOP_SECONDS, Program, Server
from quantmint.pipelines.strays import MARK, end, left_behind, of_service, service_id
from quantmint.pipelines.watching import ModelFiles

LOOPBACK: Final = "127.0.0.1"
DAGSTER: Final = "Dagster"
MLFLOW: Final = "MLflow"
TICK_SECONDS: Final = 0.3
LOOK_SECONDS: Final = 6.0


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the two pages are served."""

    dagster: int
    mlflow: int

    @property
    def pages(self) -> dict[str, str]:
        """The addresses of the pages, by the name of their server."""
        return {
            DAGSTER: f"http://{LOOPBACK}:{self.dagster}",
            MLFLOW: f"http://{LOOPBACK}:{self.mlflow}",
        }


def serve(home: Home, ports: Ports, say: Callable[[str], None]) -> None:
    """Start both pages, say where they are, and serve until SIGINT, SIGTERM or SIGHUP.

    Raises:
        UserError: a port is taken, or the home folder is served already.
        BuildError: a server does not start, or ends again and again.
    """
    service, elsewhere = service_id(), tracking_server(home)
    pages = ports.pages | ({MLFLOW: elsewhere} if elsewhere else {})
    with only_one(home, service, pages) as lock, _stop_signals() as stopping:
        _clear_up(home, say)
        for port in (ports.dagster, *([] if elsewhere else [ports.mlflow])):
            _require_free(port)
        if elsewhere:
            say(f"MLflow: {elsewhere} (MLFLOW_TRACKING_URI)")
        guard = _start_guard(service, lock)
        servers = [Server(program, service, say) for program in programs(home, ports, pages)]
        try:
            for server in servers:
                server.start()
            greeted, looked, files = False, time.monotonic(), ModelFiles()
            while not stopping:
                for server in servers:
                    server.tend()
                if not greeted and all(server.is_up for server in servers):
                    greeted = True
                    say("stop with Ctrl-C")
                if servers[0].is_up and time.monotonic() - looked > LOOK_SECONDS:
                    _look_after_definitions(ports.pages[DAGSTER], files, say)
                    looked = time.monotonic()
                if guard.poll() is not None:
                    guard = _start_guard(service, lock)
                time.sleep(TICK_SECONDS)
        finally:
            _stop_all(servers, service, guard)
    say("stopped")


def _clear_up(home: Home, say: Callable[[str], None]) -> None:
    """End what a killed service left, and fail its runs: Dagster tries them again.

    The instance is opened here, before several processes use it: their first start at the same
    time can clash.
    """
    left = end(left_behind(home.root))
    if left:
        say(f"ended {left} processes that a killed `quantmint ui` had left behind")
    with open_instance(home) as instance:
        for run in reap(instance, service_is_down=True):
            say(f"run {run} had lost its process: it failed, and is tried again if it may be")


def _look_after_definitions(page: str, files: ModelFiles, say: Callable[[str], None]) -> None:
    if files.follow(lambda: reload_all(page)):
        say("a model file changed: the definitions were loaded again")
    for name in reload_if_gone(page):
        say(f"the code server of {name} was gone: loading the definitions again")


def programs(home: Home, ports: Ports, urls: Mapping[str, str]) -> list[Program]:
    """Return the servers to start: Dagster's, and MLflow's unless its page is elsewhere."""
    home.logs.mkdir(parents=True, exist_ok=True)
    home.mlflow.mkdir(parents=True, exist_ok=True)
    env = {
        **os.environ,
        "QUANTMINT_DAGSTER_URL": urls[DAGSTER],
        "QUANTMINT_MLFLOW_URL": urls[MLFLOW],
        "QUANTMINT_HOME": str(home.root),
        "PYTHONUNBUFFERED": "1",
        # Eight more processes for something that nothing here asks for.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    words = {
        DAGSTER: [
            "dagster", "dev", "--host", LOOPBACK, "--port", str(ports.dagster),
            "--module-name", "quantmint.pipelines.definitions",
        ],
        MLFLOW: [
            "mlflow", "server", "--host", LOOPBACK, "--port", str(ports.mlflow),
            "--backend-store-uri", tracking_uri(home), "--workers", "1",
            "--default-artifact-root", (home.mlflow / "artifacts").as_uri(),
            "--no-serve-artifacts",
        ],
    }  # fmt: skip
    return [
        Program(
            name=name,
            argv=[sys.executable, "-m", *argv],
            env=env,
            cwd=home.root,
            url=urls[name],
            log=home.logs / f"{name.lower()}.log",
        )
        for name, argv in words.items()
        if urls[name] == ports.pages[name]
    ]


def _start_guard(service: str, lock: int) -> subprocess.Popen[bytes]:
    """Start the guard; it lives as long as we do, and holds the lock a little longer."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "quantmint.pipelines.guard", service],
        env={name: value for name, value in os.environ.items() if name != MARK},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=(lock,),
    )


@contextmanager
def _stop_signals() -> Iterator[Sequence[int]]:
    """Yield a list that a signal to stop is put into when it comes."""
    came: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        came.append(number)

    before = {
        number: signal.signal(number, stop)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop_all(servers: Sequence[Server], service: str, guard: subprocess.Popen[bytes]) -> None:
    """Ask each server to stop, then end what is left of all, and the guard."""
    for server in servers:
        server.ask_to_stop()
    deadline = time.monotonic() + STOP_SECONDS
    for server in servers:
        server.stop(max(0.1, deadline - time.monotonic()))
    end(of_service(service))
    assert guard.stdin is not None
    guard.stdin.close()
    guard.wait()


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
