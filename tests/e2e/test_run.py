"""Running a pulled model: on the mint's kernel, in a process that gets none of our secrets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fault_tools import TOKEN
from helpers import Ran, run_in
from quantmint.files import canonical_json
from quantmint.home import Home
from quantmint.native.build import MADE_FROM, Bundle
from quantmint.native.kernels import host_kernel
from quantmint.registry.store import Store
from quantmint.registry.trees import TreeFile, checkout, put_tree

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


def test_a_gpus_kernel_that_does_not_work_here(
    seeded_home: Home, bundle: Bundle, nano: tuple[Home, Ran], nano_file: Path
) -> None:
    assert nano[1].code == 0, nano[1].err
    store = Store(seeded_home.store).open()
    made_from = {**bundle.made_from, "kernels": ["cuda", bundle.kernel.name]}
    added = [TreeFile("libggml-cuda.so", store.put_bytes(b"no library at all")),
             TreeFile(MADE_FROM, store.put_bytes(canonical_json(made_from)))]  # fmt: skip
    own = [file for file in bundle.tree.files if file.path != MADE_FROM]
    checkout(store, put_tree(store, [*own, *added]), "cuda")
    words = ["run", f"file:{nano_file}:Q8_0", "Say hello.", "--max-tokens", "8", "--temperature",
             "0"]  # fmt: skip
    ran = run_in(seeded_home, *words, "--kernel", "cuda", **ENV)
    assert ran.code == 0, ran.err
    assert "kernel cuda finds no GPU here: running on the CPU" in ran.err
    assert ran.out == run_in(seeded_home, *words, **ENV).out


def test_a_kernel_that_this_cpu_can_not_run(nano: tuple[Home, Ran], nano_file: Path) -> None:
    other = "armv8.0" if bundle_is_x64() else "x64"
    ran = run_in(nano[0], "run", f"file:{nano_file}:Q8_0", "hello", "--kernel", other, **ENV)
    assert (ran.code, ran.out) == (2, "")
    assert f"kernel '{other}' can't run on this machine" in ran.err


def bundle_is_x64() -> bool:
    return "x86_64" in host_kernel().machines


def test_a_model_that_llama_cpp_does_not_load(nano: tuple[Home, Ran], tmp_path: Path) -> None:
    from pulling import model_bytes

    home, _ = nano
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "x-Q8_0.gguf").write_bytes(model_bytes())
    ran = run_in(home, "run", f"file:{tmp_path / 'plain'}", "hello", **ENV)
    assert ran.code != 0
    assert "error: " in ran.err
    assert "Traceback" not in ran.err
