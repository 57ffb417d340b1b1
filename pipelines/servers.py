"""The servers behind the pages: each one process with children, started again if it ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from quantmint.errors import BuildError
from quantmint.orphans import PR_SET_PDEATHSIG
from quantmint.pipelines import loopback
from quantmint.pipelines.strays import MARK, end, of_service
from quantmint.process import describe_exit

START_SECONDS: Final = 180
STOP_SECONDS: Final = 20
# A server that ends more often than that within so many seconds will not get better by itself.
MOST_RESTARTS: Final = 5
RESTART_WINDOW: Final = 600.0
LAST_LINES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What is started for one page, where it answers, and where its output goes."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    url: str
    log: Path


@dataclass(slots=True)
class Server:
    """A program that is kept running; `service` is the mark of all that belongs to it."""

    program: Program
    service: str
    say: Callable[[str], None]
    process: subprocess.Popen[bytes] | None = None
    is_up: bool = False
    was_up: bool = False
    started: float = 0.0
    ends: list[float] = field(default_factory=list)

    def start(self) -> None:
        """Start the program; its log of the first time is a new one."""
        program = self.program
        with program.log.open("ab" if self.ends else "wb") as output:
            self.process = subprocess.Popen(
                program.argv,
                cwd=program.cwd,
                env={**program.env, MARK: f"{self.service}:{program.name}"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent(os.getpid()),  # noqa: PLW1509
            )
        self.started, self.is_up = time.monotonic(), False

    def tend(self) -> None:
        """Look after the program: say when its page answers, start it again if it ended.

        Raises:
            BuildError: it does not answer in time, or ends again and again.
        """
        assert self.process is not None
        code = self.process.poll()
        if code is not None:
            self._again(code)
        elif not self.is_up and self._answers():
            self.say(f"{self.program.name}: {self.program.url}")
            self.is_up = self.was_up = True
        elif not self.is_up and time.monotonic() - self.started > START_SECONDS:
            raise self._failure(f"did not answer within {START_SECONDS} s")

    def ask_to_stop(self) -> None:
        """Send the program SIGTERM: it ends its own children in order."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def stop(self, seconds: float) -> None:
        """Give it so many seconds to end, then end all that is left of it."""
        if self.process is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        self._clear()

    def _again(self, code: int) -> None:
        how = describe_exit(code) if code else "ended by itself"
        self._clear()
        now = time.monotonic()
        self.ends = [moment for moment in self.ends if now - moment < RESTART_WINDOW] + [now]
        if not self.was_up or len(self.ends) > MOST_RESTARTS:
            often = f" {len(self.ends)} times in a row" if self.was_up else ""
            raise self._failure(f"{how}{often}")
        self.say(f"{self.program.name} {how}: starting it again")
        self.start()

    def _clear(self) -> None:
        """End the whole group, and whatever left it."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        end(of_service(self.service, self.program.name))

    def _answers(self) -> bool:
        try:
            with loopback.ask(self.program.url, 5):
                return True
        except OSError:
            return False

    def _failure(self, how: str) -> BuildError:
        log = self.program.log
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
        return BuildError(
            f"{self.program.name} {how}\n    " + "\n    ".join(tail), mend=f"read {log}"
        )


def _die_with_parent(parent: int) -> Callable[[], None]:
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded before the fork

    def before_exec() -> None:
        # Dagster stops on SIGTERM only if SIGINT is not ignored, as it is under a shell's `&`.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if libc is not None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(125)

    return before_exec
