"""Child processes: native tools with limits, whole output in a log, errors that can be acted on."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from quantmint.errors import BuildError
from quantmint.orphans import PR_SET_PDEATHSIG

# How long a tool that ends its own children may take for it.
STOP_SECONDS = 5.0
# What a tool gets of our environment. A token, a proxy's password or a PYTHONPATH is not in it.
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "USER", "SOURCE_DATE_EPOCH")
LAST_LINES = 15


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a child process; None is no bound."""

    wall_seconds: float | None = None
    address_space: int | None = None
    file_size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One run of a tool: what is executed, where, with what environment and which limits.

    `ended_by` ends it when we are gone: SIGTERM for a tool that starts children in process groups
    of their own and ends them itself (ninja), which nobody else could find.
    """

    argv: Sequence[str | Path]
    cwd: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = Limits()
    log: Path | None = None
    stdin: bytes | None = None
    pass_env: Sequence[str] = ()
    ended_by: signal.Signals = signal.SIGKILL

    @property
    def line(self) -> str:
        """The command line as a shell would take it."""
        return shlex.join(str(word) for word in self.argv)


@dataclass(frozen=True, slots=True)
class Finished:
    """What a child process left behind: its exit code and both its streams as text."""

    code: int
    stdout: str
    stderr: str

    @property
    def last_lines(self) -> str:
        """The end of what it said."""
        lines = [line for line in (self.stdout + "\n" + self.stderr).splitlines() if line.strip()]
        return "\n".join(lines[-LAST_LINES:])


def child_environment(command: Command) -> dict[str, str]:
    """Return the whole environment that the child of `command` gets."""
    env = {key: os.environ[key] for key in (*PASSED_ON, *command.pass_env) if key in os.environ}
    # ggml forks gdb when it aborts unless told not to.
    return {"GGML_NO_BACKTRACE": "1", **env, **command.env}


def run(
    command: Command,
    *,
    on_line: Callable[[str], None] | None = None,
    check: bool = True,
) -> Finished:
    """Run `command` to its end, feeding each line of its output to `on_line` as it comes.

    Raises:
        BuildError: the program is missing, ran past its limits, or (with `check`) failed.
    """
    process = _start(command)
    out, err = _Reader(process.stdout, on_line), _Reader(process.stderr, on_line)
    feeder = _feed(process, command.stdin)
    timed_out = False
    try:
        process.wait(command.limits.wall_seconds)
    except subprocess.TimeoutExpired:
        timed_out = True
    finally:
        end_group(process, command.ended_by)
        feeder.join()
        finished = Finished(process.returncode, out.text(), err.text())
        _keep_log(command, finished)
    if timed_out:
        raise failure(command, finished, f"ran past its {command.limits.wall_seconds:.0f} s")
    if check and finished.code != 0:
        raise failure(command, finished, describe_exit(finished.code))
    return finished


def failure(command: Command, finished: Finished, how: str) -> BuildError:
    """Return the error for a tool that failed: its command line, exit code and last lines."""
    name = Path(str(command.argv[0])).name
    log = f"; the whole output is in {command.log}" if command.log else ""
    tail = "\n".join(f"    | {line}" for line in finished.last_lines.splitlines())
    return BuildError(
        f"{name} {how}{log}\n    $ {command.line}\n{tail}",
        mend="read the lines above; the command can be run again by hand as printed",
    )


def answer_of(command: Command, finished: Finished) -> dict[str, Any]:
    """Return the JSON object that a child wrote as the last line of its standard output.

    Raises:
        BuildError: it wrote none.
    """
    try:
        answer: dict[str, Any] = json.loads(finished.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        raise failure(command, finished, "gave no answer") from None
    return answer


def describe_exit(code: int) -> str:
    """Return `failed with exit code 3`, or `was ended by SIGABRT` for a negative code."""
    if code >= 0:
        return f"failed with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def end_group(process: subprocess.Popen[bytes], first: signal.Signals = signal.SIGKILL) -> None:
    """End whatever is left of the child's process group, then reap the child."""
    if first is not signal.SIGKILL and process.poll() is None:
        process.send_signal(first)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _start(command: Command) -> subprocess.Popen[bytes]:
    parent = os.getpid()
    libc = ctypes.CDLL(None)  # loaded before the fork: nothing may be allocated after it

    def before_exec() -> None:
        # A killed build must leave no tool running that still writes.
        libc.prctl(PR_SET_PDEATHSIG, command.ended_by)
        if os.getppid() != parent:
            os._exit(125)
        _set_limits(command.limits)

    try:
        return subprocess.Popen(
            [str(word) for word in command.argv],
            cwd=command.cwd,
            env=child_environment(command),
            stdin=subprocess.PIPE if command.stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=before_exec if sys.platform == "linux" else None,  # noqa: PLW1509
        )
    except (FileNotFoundError, PermissionError) as error:
        raise BuildError(
            f"{command.argv[0]} could not be started: {error.strerror}",
            mend="quantmint doctor  (it lists what is missing and how to install it)",
        ) from error


def _set_limits(limits: Limits) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for kind, value in (
        (resource.RLIMIT_AS, limits.address_space),
        (resource.RLIMIT_FSIZE, limits.file_size),
    ):
        if value is not None:
            resource.setrlimit(kind, (value, value))


class _Reader:
    """Reads a stream in a thread, keeps its last megabyte, hands on whole lines."""

    def __init__(self, stream: IO[bytes] | None, on_line: Callable[[str], None] | None) -> None:
        self._kept: deque[str] = deque()
        self._size = 0
        self._thread = threading.Thread(target=self._pump, args=(stream, on_line), daemon=True)
        self._thread.start()

    def _pump(self, stream: IO[bytes] | None, on_line: Callable[[str], None] | None) -> None:
        assert stream is not None
        with stream:
            for raw in stream:
                line = raw.decode("utf-8", "replace")
                self._keep(line)
                if on_line is not None:
                    on_line(line.rstrip("\n"))

    def _keep(self, line: str) -> None:
        self._kept.append(line)
        self._size += len(line)
        while self._size > 1 << 20 and len(self._kept) > 1:
            self._size -= len(self._kept.popleft())

    def text(self) -> str:
        self._thread.join()
        return "".join(self._kept)


def _feed(process: subprocess.Popen[bytes], data: bytes | None) -> threading.Thread:
    def feed() -> None:
        if process.stdin is None or data is None:
            return
        try:
            with process.stdin as stdin:
                stdin.write(data)
        except BrokenPipeError:
            pass  # it ended early; its exit code says why

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    return thread


def _keep_log(command: Command, finished: Finished) -> None:
    if command.log is None:
        return
    text = f"$ {command.line}\n{finished.stdout}{finished.stderr}[exit code {finished.code}]\n"
    with contextlib.suppress(OSError):  # a full disk: what the tool made of it matters more
        command.log.parent.mkdir(parents=True, exist_ok=True)
        command.log.write_text(text, encoding="utf-8")
