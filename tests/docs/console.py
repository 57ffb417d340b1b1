"""Commands out of a document, run one after the other in one shell, and their output compared.

A document shows commands in fences of the kind `console`: lines that begin with `$ `, each with
what it prints below it. A line of three dots stands for any output; a comment right before the
fence tells what a test can't do as a reader does:

| comment | meaning |
|---|---|
| `<!-- output varies -->` | the exit code counts, the text does not |
| `<!-- until Ctrl-C -->` | a server: it is stopped when the last line shown has come |
| `<!-- with PostgreSQL -->` | only where a server can be started |
| `<!-- with another pin -->` | in a copy of the checkout that pins another llama.cpp |
| `<!-- not run: WHY -->` | nothing but the words is checked |

A command that fails must be followed by `$ echo $?` and its exit code.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Final, Self

_FENCE: Final = re.compile(
    r"^(?: *<!-- (?P<note>[^\n]+) -->\n)? *```console\n(?P<body>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
_HEREDOC: Final = re.compile(r"<<'(\w+)'")
EXIT_CODE: Final = "echo $?"
_MARK: Final = "--- the command has ended with"
# What the documents were written on.
SHOWN_FOLDER: Final = "/home/ada/mint"
SHOWN_HUB: Final = "https://huggingface.co"
SHOWN_KERNEL: Final = "zen4"
# What differs from run to run and from machine to machine, and what may stand in its place.
_VARIES: Final = re.compile(
    r"(?P<key>ed25519:[A-Za-z0-9+/]+=*)"
    r"|(?P<digest>\b(?=[a-f]*\d)[0-9a-f]{6,64}\b)"
    r"|(?P<number>(?<![\w.])\d+(?:[.:,]\d+)*(?!\w))"
    r"|(?P<unit>^[kMG]?B$)"
    rf"|(?P<kernel>(?<![a-z]){SHOWN_KERNEL}\b)"
    r"|(?P<rule>-{2,})"
)
_GENERAL: Final = {
    "key": r"ed25519:\S+", "digest": "[0-9a-f]+", "number": r"[\d.:,]+", "unit": r"\w?B",
    "kernel": r"[\w.-]+", "rule": "-+",
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One command of a document, with the lines that it is shown to print."""

    command: str
    shown: tuple[str, ...]
    note: str
    line: int


def steps_of(text: str) -> Iterator[Step]:
    """Yield the commands of a document in order."""
    for fence in _FENCE.finditer(text):
        first = text.count("\n", 0, fence.start("body")) + 1
        yield from _steps(dedent(fence["body"]).splitlines(), fence["note"] or "", first)


def _steps(lines: Sequence[str], note: str, first: int) -> Iterator[Step]:
    at = 0
    while at < len(lines):
        begun, line = at, lines[at]
        assert line.startswith("$ "), f"line {first + at} is no command: {line}"
        command = [line[2:]]
        at += 1
        heredoc = _HEREDOC.search(line)
        while (heredoc and command[-1] != heredoc[1]) or command[-1].endswith("\\"):
            command.append(lines[at])
            at += 1
        shown = []
        while at < len(lines) and not lines[at].startswith("$ "):
            shown.append(lines[at])
            at += 1
        yield Step("\n".join(command), tuple(shown), note, first + begun)


def missing(step: Step, output: str, instead: Mapping[str, str]) -> list[str]:
    """Return the shown lines that the output does not hold, numbers and digests aside.

    `instead` says what stands here for a folder or an address that the document shows.
    """
    found = [line.strip() for line in output.splitlines()]
    if step.command == EXIT_CODE:
        return [line for line in step.shown if line not in found]
    return [line for line in step.shown if not _occurs(line, found, instead)]


def _occurs(line: str, found: Sequence[str], instead: Mapping[str, str]) -> bool:
    if not line.strip() or line.strip() == "...":
        return True
    shown = line.removesuffix("...")
    for name, here in instead.items():
        shown = shown.replace(name, here)
    expression = re.compile(r"\s+".join(_word(word) for word in shown.split()))
    matches = expression.match if line.endswith("...") else expression.fullmatch
    return any(matches(each) for each in found)


def _word(word: str) -> str:
    parts, at = [], 0
    for hit in _VARIES.finditer(word):
        parts += [re.escape(word[at : hit.start()]), _GENERAL[str(hit.lastgroup)]]
        at = hit.end()
    return "".join([*parts, re.escape(word[at:])])


@dataclass
class Shell:
    """A bash in which the commands of a document run, one after the other."""

    folder: Path
    env: Mapping[str, str]
    _process: subprocess.Popen[str] = field(init=False)

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"], cwd=self.folder, env=dict(self.env), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # A server that was started and not stopped goes with it. The shell's input ends too: a
        # signal that comes just before it reads is noted, and the read waits for ever.
        os.killpg(self._process.pid, signal.SIGTERM)
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def run(self, command: str) -> tuple[int, str]:
        """Run a command to its end; return its exit code and what it printed."""
        # Its input is empty, else it would read the commands that are to come.
        self._say(f"{{\n{command}\n}} </dev/null\n__code=$?\nprintf '\\n{_MARK} %d\\n' $__code")
        self._say("(exit $__code)")
        assert self._process.stdout is not None
        lines: list[str] = []
        for line in self._process.stdout:
            if line.startswith(_MARK):
                return int(line.rsplit(" ", 1)[1]), "".join(lines)
            lines.append(line)
        raise AssertionError(f"the shell ended in {command!r}:\n{''.join(lines)}")

    def start(self, command: str, last: str, seconds: float) -> tuple[int, str]:
        """Start a server; return its process id and what it printed until the line `last`."""
        log = self.folder / "server.log"
        log.write_text("")
        _, pid = self.run(f"{command} >{log} 2>&1 & echo $!")
        deadline = time.monotonic() + seconds
        while last not in (said := log.read_text()):
            assert time.monotonic() < deadline, f"{command} does not say {last!r}:\n{said}"
            time.sleep(0.2)
        return int(pid), said

    def stop(self, pid: int) -> int:
        """End a server as Ctrl-C does; return its exit code."""
        os.kill(pid, signal.SIGINT)
        return self.run(f"wait {pid}")[0]

    def _say(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()
