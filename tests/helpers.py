"""What several tests use and no fixture can be: running the command line, seeding homes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from quantmint.home import Home

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Ran:
    """What a run of the command line gave."""

    code: int
    out: str
    err: str


def run_in(home: Home, *words: str | Path, timeout: float = 900, **env: str) -> Ran:
    """Run the command line as a process, in that home."""
    finished = subprocess.run(
        [sys.executable, "-m", "quantmint", *map(str, words)],
        env={**os.environ, "QUANTMINT_HOME": str(home.root), **env},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Ran(finished.returncode, finished.stdout, finished.stderr)


def seed(home: Home, built_home: Home) -> Home:
    """Give `home` links to the objects and the source tree of the built home."""
    home.store.mkdir(parents=True)
    for name in ("objects", "actions"):
        shutil.copytree(built_home.store / name, home.store / name, copy_function=os.link)
    home.work.mkdir()
    for tree in built_home.work.glob("llama.cpp-*"):
        (home.work / tree.name).symlink_to(tree)
    return home


def with_template(model: Path, folder: Path, template: str | None) -> Path:
    """Return a folder with the model under another chat template, or under none."""
    folder.mkdir()
    change = ["--chat-template", template] if template else []
    change += [] if template else ["--remove-metadata", "tokenizer.chat_template", "--force"]
    subprocess.run(
        [sys.executable, "-m", "gguf.scripts.gguf_new_metadata", *change, model,
         folder / model.name],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


def processes_of(home: Home) -> list[str]:
    """Return the command lines of all processes that work in that home."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(home.root) in line:
            found.append(line)
    return found


def gone(pid: int, seconds: float = 5) -> bool:
    """Wait until the process is dead (a zombie counts as dead)."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """Mount a disk of that size for the length of the block, or skip the test."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root, with the right to mount, can make a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
