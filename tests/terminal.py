"""A program on a terminal of its own: what a person would type, and what they would see."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from typing import Self


class Terminal:
    """A running program. `said` is all that it wrote; `wait` looks behind `seen` only.

    Without `columns` the terminal does not say how wide it is.
    """

    def __init__(
        self, words: Sequence[str], env: Mapping[str, str], columns: int | None = None
    ) -> None:
        self._ours, theirs = pty.openpty()
        if columns is not None:
            self.resize(columns)
        self._process = subprocess.Popen(
            words, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        self.said = ""
        self.seen = 0

    def wait(self, text: str, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.said[self.seen :]:
            assert time.monotonic() < deadline, f"no {text!r} in {self.said[self.seen :]!r}"
            assert self._read(0.2), f"it ended without {text!r}: {self.said!r}"
        self.seen = self.said.index(text, self.seen) + len(text)

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def code(self, seconds: float = 60) -> int:
        """Read to the end; return the exit code."""
        deadline = time.monotonic() + seconds
        while self._read(0.2) and time.monotonic() < deadline:
            pass
        return self._process.wait(max(0.1, deadline - time.monotonic()))

    def _read(self, seconds: float) -> bool:
        if not select.select([self._ours], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self._ours, 1 << 16)
        except OSError:  # the other side was closed
            return False
        self.said += data.decode(errors="replace")
        return bool(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        with contextlib.suppress(OSError):
            os.close(self._ours)
