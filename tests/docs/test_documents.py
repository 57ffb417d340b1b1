"""The commands of the tutorial and of the operator's handbook do what the documents say."""

from __future__ import annotations

import os
import re
import shutil
import socket
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from docs.console import EXIT_CODE, SHOWN_FOLDER, SHOWN_HUB, Shell, Step, missing, steps_of
from docs.postgres import programs_path, require, running
from helpers import ROOT

pytestmark = [pytest.mark.native, pytest.mark.e2e]
PAGE = re.compile(r"http://127\.0\.0\.1:\d+")
SERVER_SECONDS = 180.0


# What a later part of a document stands on: where it is, and what the shell knows.
SETTING = ("cd ", "export ", "KEY=")
MINT = "mint"
POSTGRES = "with PostgreSQL"


def differences(folder: Path, env: Mapping[str, str], steps: Sequence[Step]) -> Iterator[str]:
    """Run commands; yield what differs from what is shown, and end where one fails."""
    mint = folder if folder.name == MINT else folder / MINT
    instead = {SHOWN_FOLDER: str(mint), SHOWN_HUB: env.get("HF_ENDPOINT", SHOWN_HUB)}
    with Shell(folder, env) as shell:
        for at, step in enumerate(steps):
            code, said = execute(shell, step)
            may_fail = at + 1 < len(steps) and steps[at + 1].command == EXIT_CODE
            where = f"line {step.line}: $ {step.command}"
            if code and not may_fail:
                yield f"{where}\nended with {code}:\n{said}"
                return
            if step.note == "output varies":
                continue
            lacking = missing(step, said, instead)
            if lacking:
                yield "\n".join([where, "does not print", *lacking, "but", said])


def execute(shell: Shell, step: Step) -> tuple[int, str]:
    if step.note == "with another pin":
        return shell.run(f"PYTHONPATH={other_pin(shell.folder)} {step.command}")
    if step.note != "until Ctrl-C":
        return shell.run(step.command)
    ports = f"--port {free_port()} --mlflow-port {free_port()}"
    pid, said = shell.start(f"{step.command} {ports}", step.shown[-1], SERVER_SECONDS)
    for page in PAGE.findall(said):
        with urllib.request.urlopen(page, timeout=60) as answer:
            assert answer.status == 200
    return shell.stop(pid), said


def other_pin(folder: Path) -> Path:
    """Copy the checkout, with another llama.cpp pinned; return where Python finds it."""
    copy = folder / "checkout"
    for name in ("src", "pipelines", "assets", "native", "registry"):
        unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=unwanted)
    pin = copy / "native" / "llama_cpp.yaml"
    text = pin.read_text(encoding="utf-8")
    pin.write_text(re.sub("^sha256: .", "sha256: f", text, flags=re.MULTILINE), encoding="utf-8")
    return copy / "src"


def steps_in(name: str) -> list[Step]:
    """Return the commands of a document that can be run at all."""
    steps = list(steps_of((ROOT / "docs" / name).read_text(encoding="utf-8")))
    notes = {step.note.partition(":")[0] for step in steps}
    assert notes <= {"", "output varies", "until Ctrl-C", "with another pin", POSTGRES, "not run"}
    return [step for step in steps if not step.note.startswith("not run")]


@pytest.fixture(scope="module")
def tutorial(reader: Path, reader_env: Mapping[str, str]) -> list[str]:
    """What the tutorial's commands did other than it says."""
    return list(differences(reader, reader_env, steps_in("tutorial.md")))


@pytest.fixture(scope="module")
def handbook(reader: Path, reader_env: Mapping[str, str], tutorial: list[str]) -> list[str]:
    """The same of the operator's, in the tutorial's folder."""
    assert not tutorial, "the tutorial comes first, and fails"
    steps = [step for step in steps_in("operations.md") if step.note != POSTGRES]
    return list(differences(reader / "mint", reader_env, steps))


def test_the_tutorial(tutorial: list[str]) -> None:
    assert not tutorial, "\n\n".join(tutorial)


def test_the_handbook(handbook: list[str]) -> None:
    assert not handbook, "\n\n".join(handbook)


def test_the_handbook_on_postgresql(
    reader: Path, reader_env: Mapping[str, str], handbook: list[str]
) -> None:
    require()
    assert not handbook, "\n\n".join(handbook)
    steps = [
        step
        for step in steps_in("operations.md")
        if step.note == POSTGRES or step.command.startswith(SETTING)
    ]
    with running() as server:
        env = {**reader_env, **server.env}
        env["PATH"] = f"{reader_env['PATH']}{os.pathsep}{programs_path()}"
        found = list(differences(reader / "mint", env, steps))
    assert not found, "\n\n".join(found)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
