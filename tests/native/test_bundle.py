"""The built bundle: it runs from anywhere, with its own libraries and its one kernel alone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from quantmint.errors import IntegrityError
from quantmint.files import canonical_json
from quantmint.home import Home
from quantmint.native.build import MADE_FROM, TOOLS, Bundle, build_kernel
from quantmint.native.loaded import (
    Watched,
    kernels_among,
    mapped_to_the_end,
    require_own,
    run_watched,
)
from quantmint.native.pin import current_pin
from quantmint.process import Command
from quantmint.registry.store import Store

pytestmark = pytest.mark.native
WORKER = """
import sys
from pathlib import Path
from quantmint.native.evaluation.child.llama import load_kernel
load_kernel(Path(sys.argv[1]))
import llama_cpp
llama_cpp.llama_backend_init()
print(Path("/proc/self/maps").read_text())
"""


@pytest.fixture
def foreign(bundle: Bundle, tmp_path: Path) -> Path:
    """A folder with working copies of llama.cpp's libraries and a kernel of another name."""
    folder = tmp_path / "foreign"
    shutil.copytree(bundle.folder, folder)
    shutil.copy(bundle.kernel_library, folder / "libggml-cpu-foreign.so")
    return folder


def tokenize(bundle: Bundle, llama_source: Path, cwd: Path, **env: str) -> Watched:
    """Run a tool that loads kernels, and watch what it maps."""
    vocab = llama_source / "models" / "ggml-vocab-phi-3.gguf"
    argv = [*bundle.command("llama-tokenize"), "-m", vocab, "-p", "a", "--log-disable"]
    watched = run_watched(Command(argv=argv, cwd=cwd, env=env))
    assert "'<s>'" in watched.finished.stdout
    return watched


def plain(flag: str) -> str:
    """/proc/cpuinfo and GCC write some flags differently: avx512_vnni, -mavx512vnni."""
    return re.sub(r"[-_.]", "", flag)


def test_a_second_build_comes_from_the_store(built_home: Home, bundle: Bundle) -> None:
    lines: list[str] = []
    again = build_kernel(built_home, Store(built_home.store).open(), bundle.kernel, lines.append)
    assert again.cached
    assert again.tree == bundle.tree
    assert again.tools_digest == bundle.tools_digest
    assert again.kernel_seconds == bundle.kernel_seconds > 0
    assert lines == []


def test_the_bundle_holds_one_kernel_and_every_tool(bundle: Bundle) -> None:
    names = {file.path for file in bundle.tree.files}
    kernels = {name for name in names if name.startswith("libggml-cpu-")}
    assert kernels == {bundle.kernel.library}
    assert set(TOOLS) <= names


def test_it_says_what_it_was_made_from(bundle: Bundle, built_home: Home) -> None:
    said = (bundle.folder / MADE_FROM).read_bytes()
    found = json.loads(said)
    assert found == bundle.made_from
    assert said == canonical_json(found)
    assert found["llama.cpp"]["sha256"] == current_pin().sha256
    assert found["kernels"] == [bundle.kernel.name]
    assert found["compilers"]["CXX"]["version"]
    rows = found["targets"][bundle.kernel.target]["compile"]
    assert {row["language"] for row in rows} >= {"C", "CXX"}
    for row in rows:
        assert any("-O3" in flag for flag in row["flags"])
        if "x86_64" in bundle.kernel.machines:
            flags = {plain(flag).removeprefix("m") for flag in row["flags"]}
            assert {plain(flag) for flag in bundle.kernel.run.cpu} <= flags
    assert "llama-quantize" in found["targets"]
    assert str(built_home.root) not in said.decode()


def test_no_path_of_the_build_is_left_inside(bundle: Bundle, built_home: Home) -> None:
    for path in bundle.folder.iterdir():
        assert str(built_home.work).encode() not in path.read_bytes(), path.name


def test_the_kernel_of_the_bundle_is_the_one_that_ran(
    bundle: Bundle, llama_source: Path, tmp_path: Path
) -> None:
    watched = tokenize(bundle, llama_source, tmp_path)
    assert watched.kernels == [bundle.kernel_library]
    require_own(bundle, watched.mapped)


@pytest.mark.parametrize("how", ["LD_LIBRARY_PATH", "GGML_BACKEND_PATH", "the current folder"])
def test_no_foreign_library_is_loaded(
    bundle: Bundle, llama_source: Path, tmp_path: Path, foreign: Path, how: str
) -> None:
    env = {
        "LD_LIBRARY_PATH": str(foreign),
        "GGML_BACKEND_PATH": str(foreign / "libggml-cpu-foreign.so"),
    }
    chosen = {how: env[how]} if how in env else {}
    cwd = tmp_path if chosen else foreign
    watched = tokenize(bundle, llama_source, cwd, **chosen)
    assert watched.kernels == [bundle.kernel_library]
    assert not [path for path in watched.touched if path.is_relative_to(foreign)]


def test_a_moved_bundle_runs_from_where_it_is(
    bundle: Bundle, llama_source: Path, foreign: Path
) -> None:
    (foreign / "libggml-cpu-foreign.so").unlink()
    vocab = llama_source / "models" / "ggml-vocab-phi-3.gguf"
    argv = [foreign / "llama-tokenize", "-m", vocab, "-p", "a", "--log-disable"]
    watched = run_watched(Command(argv=argv))
    assert watched.kernels == [foreign / bundle.kernel.library]
    with pytest.raises(IntegrityError, match="not the bundle's"):
        require_own(bundle, watched.mapped)


def test_the_bindings_map_the_bundle_alone(bundle: Bundle, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", WORKER, bundle.kernel_library],
        env={"LLAMA_CPP_LIB_PATH": str(bundle.folder), "PATH": "/usr/bin"},
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    mapped = {Path(line.split()[-1]) for line in ran.stdout.splitlines() if ".so" in line}
    ours = {path for path in mapped if path.name.startswith(("libggml", "libllama"))}
    assert ours
    assert {path.parent for path in ours} == {bundle.folder}
    assert kernels_among(sorted(ours)) == [bundle.kernel_library]


@pytest.mark.parametrize("program", ["", "/b/llama-bench"])
def test_a_kernel_that_was_only_looked_at_did_not_run(program: str) -> None:
    record = f"""
      7:\tcalling init: /b/libggml.so.0
      7:\tcalling init: /b/libggml-cpu-x64.so
      7:\tcalling fini: /b/libggml-cpu-x64.so [0]
      7:\tcalling init: /b/libggml-cpu-zen4.so
      7:\tcalling fini: {program} [0]
      7:\tcalling fini: /b/libggml-cpu-zen4.so [0]
    """
    assert kernels_among(mapped_to_the_end(record)) == [Path("/b/libggml-cpu-zen4.so")]
