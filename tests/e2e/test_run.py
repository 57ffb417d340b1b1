"""Running a pulled model: on the mint's kernel, in a process that gets none of our secrets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fault_tools import TOKEN
from helpers import Ran, run_in
from quantmint.home import Home

pytestmark = [pytest.mark.native, pytest.mark.e2e]
ENV = {"OMP_WAIT_POLICY": "PASSIVE", "HF_TOKEN": TOKEN}


def test_a_prompt_is_answered(nano: tuple[Home, Ran], nano_file: Path) -> None:
    home, _ = nano
    ref = f"file:{nano_file}:Q8_0"
    first = run_in(home, "run", ref, "Say hello.", "--max-tokens", "8", "--temperature", "0", **ENV)
    assert first.code == 0, first.err
    assert first.out.strip()
    again = run_in(home, "run", ref, "Say hello.", "--max-tokens", "8", "--temperature", "0", **ENV)
    assert again.out == first.out
    assert TOKEN not in first.out + first.err


def test_without_a_terminal_the_input_is_the_prompt(
    nano: tuple[Home, Ran], nano_file: Path
) -> None:
    home, _ = nano
    words = ["run", f"file:{nano_file}:Q8_0", "--max-tokens", "8", "--temperature", "0"]
    asked = run_in(home, *words[:2], "Say hello.", *words[2:], **ENV)
    piped = subprocess.run(
        [sys.executable, "-m", "quantmint", *words],
        input="Say hello.", env={**ENV, "QUANTMINT_HOME": str(home.root), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert (piped.returncode, piped.stdout) == (0, asked.out), piped.stderr


def test_a_model_that_llama_cpp_does_not_load(nano: tuple[Home, Ran], tmp_path: Path) -> None:
    from pulling import model_bytes

    home, _ = nano
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "x-Q8_0.gguf").write_bytes(model_bytes())
    ran = run_in(home, "run", f"file:{tmp_path / 'plain'}", "hello", **ENV)
    assert ran.code != 0
    assert "error: " in ran.err
    assert "Traceback" not in ran.err
