"""The built bundle: it runs from anywhere, and with the one kernel that it was built for."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from quantmint.home import Home
from quantmint.native.build import TOOLS, Bundle, build_kernel
from quantmint.registry.store import Store

pytestmark = pytest.mark.native


def test_a_second_build_comes_from_the_store(built_home: Home, bundle: Bundle) -> None:
    lines: list[str] = []
    again = build_kernel(built_home, Store(built_home.store).open(), bundle.kernel, lines.append)
    assert again.cached
    assert again.tree == bundle.tree
    assert lines == []


def test_the_bundle_holds_one_kernel_and_every_tool(bundle: Bundle) -> None:
    names = {file.path for file in bundle.tree.files}
    kernels = {name for name in names if name.startswith("libggml-cpu-")}
    assert kernels == {bundle.kernel.library}
    assert set(TOOLS) <= names


def test_no_library_comes_from_elsewhere(bundle: Bundle, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(bundle.folder, moved)
    for path in moved.iterdir():
        listed = subprocess.run(
            ["ldd", str(path)], capture_output=True, text=True, check=True
        ).stdout
        for line in listed.splitlines():
            if "libggml" in line or "libllama" in line:
                assert str(moved) in line, line


def test_no_path_of_the_build_is_left_inside(bundle: Bundle, built_home: Home) -> None:
    for path in bundle.folder.iterdir():
        assert str(built_home.work).encode() not in path.read_bytes(), path.name


def test_the_loader_takes_the_kernel_of_the_bundle(bundle: Bundle, llama_source: Path) -> None:
    vocab = llama_source / "models" / "ggml-vocab-phi-3.gguf"
    ran = subprocess.run(
        ["strace", "-f", "-e", "trace=openat", "-o", "/dev/stdout",
         bundle.tool("llama-tokenize"), "-m", vocab, "-p", "a", "--log-disable"],
        capture_output=True, text=True, check=False,
    ) if shutil.which("strace") else None  # fmt: skip
    if ran is None:
        pytest.skip("strace is not installed")
    opened = [
        line for line in ran.stdout.splitlines() if "libggml-cpu-" in line and "= -1" not in line
    ]
    assert opened
    assert all(bundle.kernel.library in line for line in opened)
