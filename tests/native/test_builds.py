"""Builds: rebuilt exactly when what they are made from changes, equal bytes in two folders,
and no kernel on a CPU that lacks its instructions.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from threading import Thread

import pytest

from helpers import run_in
from quantmint.errors import BuildError, UserError
from quantmint.files import sha256_of
from quantmint.home import Home
from quantmint.native.build import Bundle, build_all_cpu, made_from
from quantmint.native.building import codemodel, trees
from quantmint.native.building.ninja import compile_targets, seconds_by_target
from quantmint.native.building.options import tree_options
from quantmint.native.building.parallel import cores, jobs, memory
from quantmint.native.building.parts import Part, kernel_action, make_kernels
from quantmint.native.building.sdk import (
    CUDA_ARCHITECTURES,
    host_architecture,
    sdk_options,
)
from quantmint.native.building.trees import BuildTree
from quantmint.native.emulator import emulator, lesser_cpu
from quantmint.native.host import cpu_flags, machine_name
from quantmint.native.kernels import host_kernel, runnable
from quantmint.native.loaded import run_watched
from quantmint.native.matrix import kernel_named, matrix
from quantmint.native.pin import current_pin
from quantmint.native.toolchain import find_toolchain
from quantmint.process import Command
from quantmint.registry.actions import Outcome, record
from quantmint.registry.store import Store
from quantmint.registry.trees import TreeFile, put_tree

pytestmark = pytest.mark.native
on_x86 = pytest.mark.skipif(machine_name() != "x86_64", reason="its kernels are for x86-64")
# What qemu's models have, as /proc/cpuinfo would name it.
NEHALEM = frozenset({"sse4_2"})
HASWELL = frozenset({"sse4_2", "avx", "f16c", "fma", "avx2", "bmi2"})
SCORES = """
import ctypes, json, sys
from pathlib import Path
ctypes.CDLL(sys.argv[1] + "/libggml-base.so", ctypes.RTLD_GLOBAL)
found = {}
for path in sorted(Path(sys.argv[1]).glob("libggml-cpu-*.so")):
    score = ctypes.CDLL(str(path)).ggml_backend_score
    found[path.name] = score()
print(json.dumps(found))
"""


def tree_in(home: Home, store: Store, options: Mapping[str, str] | None = None) -> BuildTree:
    chain = find_toolchain()
    return BuildTree(
        home=home, store=store, name="test", chain=chain, tools={},
        options=tree_options(host_kernel(), chain, current_pin()) | dict(options or {}),
    )  # fmt: skip


@pytest.fixture
def linked_home(home: Home, llama_source: Path) -> Home:
    """A fresh home that shares the unpacked source: another path to the same files."""
    home.work.mkdir(parents=True)
    root = llama_source.parents[1]
    (home.work / root.name).symlink_to(root)
    return home


@pytest.fixture(scope="session")
def lesser(built_home: Home, bundle: Bundle) -> Bundle:
    """A bundle of CPU kernels from the least to the host's: all of them where that was asked for.

    One kernel beyond the host's is enough to see which one is chosen, and costs its own objects.
    """
    every = [k for k in matrix() if k.kind == "cpu" and machine_name() in k.machines]
    wanted = every if os.environ.get("QUANTMINT_TEST_ALL_KERNELS") else [every[0], bundle.kernel]
    store = Store(built_home.store).open()
    return build_all_cpu(built_home, store, wanted, lambda line: print(line, flush=True))


def test_what_a_kernel_is_made_from_decides(
    linked_home: Home, store: Store, tmp_path: Path, llama_source: Path
) -> None:
    kernel, said = host_kernel(), []
    first = kernel_action(tree_in(linked_home, store), kernel, said.append)
    assert len(said) == 1
    again = kernel_action(tree_in(linked_home, store), kernel, said.append)
    assert again == first
    assert len(said) == 1, "CMake is asked once for the same tree"

    elsewhere = Home(tmp_path / "elsewhere")
    elsewhere.work.mkdir(parents=True)
    root = llama_source.parents[1]
    (elsewhere.work / root.name).symlink_to(root)
    other_store = Store(elsewhere.store).open()
    assert kernel_action(tree_in(elsewhere, other_store), kernel, said.append) == first

    harmless = tree_in(linked_home, store, {"LLAMA_BUILD_EXAMPLES": "ON"})
    assert kernel_action(harmless, kernel, said.append).key == first.key
    flagged = tree_in(linked_home, store, {"GGML_LLAMAFILE": "OFF"})
    assert kernel_action(flagged, kernel, said.append).key != first.key


def test_who_waited_for_a_build_takes_what_was_made(
    linked_home: Home, store: Store, tmp_path: Path
) -> None:
    tree, kernel, said = tree_in(linked_home, store), host_kernel(), list[str]()
    action = kernel_action(tree, kernel, said.append)
    parts: list[Part] = []
    builder = Thread(target=lambda: parts.extend(make_kernels(tree, [kernel], said.append)))
    with tree.alone(said.append):
        builder.start()
        deadline = time.monotonic() + 60
        while not any("waiting for it" in line for line in said):
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
        made = put_tree(store, [TreeFile(kernel.library, store.put_bytes(b"made meanwhile"))])
        outputs = {"files": made.blob}
        record(store, action, Outcome(outputs=outputs, trees=("files",), facts={"seconds": 1.0}))
    builder.join(60)
    assert [part.tree.blob for part in parts] == [made.blob]
    assert not any("compiling" in line for line in said)


def test_a_home_outlives_the_environment_that_built_in_it(
    linked_home: Home, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain, source = find_toolchain(), next(linked_home.work.glob("llama.cpp-*")) / "vendor"
    folder = linked_home.work / "quantizer"
    elsewhere = tmp_path / "another environment"
    shutil.copytree(trees.QUANTIZER, elsewhere)
    for sources in (elsewhere, trees.QUANTIZER):
        monkeypatch.setattr(trees, "QUANTIZER", sources)
        trees.configure_quantizer(
            source / "llama.cpp", bundle.folder, folder, chain, linked_home.logs
        )
        assert (
            f"CMAKE_HOME_DIRECTORY:INTERNAL={sources}\n" in (folder / "CMakeCache.txt").read_text()
        )


def test_another_compiler_makes_another_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best, another = host_kernel(), next(k for k in matrix() if k.name != host_kernel().name)
    usual = made_from([best, another])
    assert usual == made_from([best, another])
    assert usual[best.name] != usual[another.name]
    other = tmp_path / "c++"
    other.write_text("#!/bin/sh\n[ $1 = -dumpmachine ] && echo x86_64-other-linux || echo c++ 99\n")
    other.chmod(0o755)
    monkeypatch.setenv("CXX", str(other))
    changed = made_from([best])[best.name]
    differ = [name for name, part in changed.items() if part != usual[best.name][name]]
    assert differ == ["compiler"]


def test_two_folders_give_the_same_bytes(linked_home: Home, store: Store, bundle: Bundle) -> None:
    """The libraries that every kernel stands on; `make bench-kernels` compares all files."""
    tree = tree_in(linked_home, store)
    tree.configure(print)
    compile_targets(tree.folder, ["ggml"], tree.chain, print, tree.logs / "same.log")
    for name in ("libggml-base.so", "libggml.so"):
        assert sha256_of(tree.folder / "bin" / name) == sha256_of(bundle.folder / name), name
    took = seconds_by_target(tree.folder)
    assert took["ggml-base"] > took["ggml"] > 0


def test_jobs_follow_cores_and_memory(tmp_path: Path) -> None:
    assert 1 <= jobs() <= len(os.sched_getaffinity(0))
    assert jobs(memory() * 2) == 1
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "memory.max").write_text("1000000000\n")
    assert cores(tmp_path) == min(2, len(os.sched_getaffinity(0)))
    assert memory(tmp_path) == 1_000_000_000
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert cores(tmp_path) == len(os.sched_getaffinity(0))
    assert memory(tmp_path) == memory(tmp_path / "none")


def scores(bundle: Bundle, *before: str) -> dict[str, int]:
    """Ask each kernel of the bundle, in a process of its own kind, what it thinks of the CPU."""
    finished = subprocess.run(
        [*before, sys.executable, "-c", SCORES, bundle.folder],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, int] = json.loads(finished.stdout)
    return found


def test_the_matrix_agrees_with_each_kernel_on_this_cpu(lesser: Bundle) -> None:
    ours = {kernel.library for kernel in runnable(machine_name(), cpu_flags())}
    for library, score in scores(lesser).items():
        assert (library in ours) == (score > 0), library


@on_x86
@pytest.mark.parametrize(("model", "flags"), [("Nehalem", NEHALEM), ("Haswell", HASWELL)])
def test_on_a_lesser_cpu_no_kernel_is_started_that_it_lacks(
    lesser: Bundle, llama_source: Path, model: str, flags: frozenset[str]
) -> None:
    if shutil.which("qemu-x86_64") is None:
        pytest.skip("qemu-user is not installed")
    before = lesser_cpu(model)
    own = {library for library, score in scores(lesser, *before).items() if score > 0}
    offered = {kernel.library for kernel in runnable("x86_64", flags)}
    there = {path.name for path in lesser.folder.glob("libggml-cpu-*.so")}
    assert offered & there == own, "what we offer is what the kernels themselves accept"

    vocab = llama_source / "models" / "ggml-vocab-phi-3.gguf"
    argv = [*before, lesser.tool("llama-tokenize"), "-m", vocab, "-p", "a", "--log-disable"]
    watched = run_watched(Command(argv=argv))
    assert "'<s>'" in watched.finished.stdout
    (chosen,) = watched.kernels
    best = [k.library for k in runnable("x86_64", flags) if k.library in there][-1]
    assert chosen == lesser.folder / best


def test_the_command_takes_names_and_builds_each_once(seeded_home: Home, bundle: Bundle) -> None:
    ran = run_in(seeded_home, "kernels", "build", "host", bundle.kernel.name, "--json")
    assert ran.code == 0, ran.err
    (row,) = json.loads(ran.out)["kernels"]
    assert (row["kernel"], row["cached"]) == (bundle.kernel.name, True)
    assert row["sha256"] == bundle.tree.sha256
    assert row["made_from"] == bundle.made_from


def test_a_kernel_that_can_not_be_built_here_says_why(home: Home) -> None:
    ran = run_in(home, "kernels", "build", "metal")
    assert ran.code == BuildError.exit_code
    assert "kernel 'metal' can't be built on this machine: for macOS only" in ran.err


@pytest.mark.parametrize(
    ("wanted", "given"),
    [("86;90", "86;90"), ("90a-real", "90a-real"), ("fat", None), (None, "90")],
)
def test_cuda_is_built_for_one_architecture_unless_asked(
    monkeypatch: pytest.MonkeyPatch, wanted: str | None, given: str | None
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")  # no GPU that could be asked
    host_architecture.cache_clear()
    options = sdk_options(kernel_named("cuda"), {CUDA_ARCHITECTURES: wanted} if wanted else {})
    assert options.get(CUDA_ARCHITECTURES) == given


def test_the_architecture_of_the_gpu_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 8.6\necho 8.6\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    host_architecture.cache_clear()
    assert host_architecture() == "86"
    host_architecture.cache_clear()


@pytest.mark.parametrize("wanted", ["ninety", "90; rm -rf", "$(id)", "90;", ";", "-DX=1"])
def test_an_unknown_architecture_is_refused(wanted: str) -> None:
    with pytest.raises(UserError, match="names no CUDA architectures"):
        sdk_options(kernel_named("cuda"), {CUDA_ARCHITECTURES: wanted})


def test_a_target_that_the_tree_lacks_is_named(linked_home: Home, store: Store) -> None:
    kernel = host_kernel().model_copy(update={"target": "ggml-cpu-zen99"})
    with pytest.raises(BuildError, match="no target 'ggml-cpu-zen99'"):
        kernel_action(tree_in(linked_home, store), kernel, print)


def test_an_answer_of_cmake_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"CMake's answer in .* can't be read"):
        codemodel.read(tmp_path, {})
    reply = tmp_path / ".cmake" / "api" / "v1" / "reply"
    reply.mkdir(parents=True)
    (reply / "index-1.json").write_text('{"reply": {}}')
    with pytest.raises(BuildError, match="codemodel-v2"):
        codemodel.read(tmp_path, {})


def test_programs_for_another_machine_run_under_qemu(bundle: Bundle) -> None:
    assert bundle.command("llama-bench") == [bundle.folder / "llama-bench"]
    other = "x86_64" if machine_name() == "aarch64" else "aarch64"
    assert emulator(other) == (f"qemu-{other}", "-L", f"/usr/{other}-linux-gnu")


def test_a_cross_compiler_is_another_toolchain() -> None:
    if shutil.which("aarch64-linux-gnu-g++") is None or machine_name() == "aarch64":
        pytest.skip("g++-aarch64-linux-gnu is not installed")
    chain = find_toolchain("aarch64")
    assert chain.is_cross
    assert chain.triple.startswith("aarch64-")
    assert chain.options["CMAKE_SYSTEM_PROCESSOR"] == "aarch64"
    assert chain.compiler != find_toolchain().compiler


def test_a_missing_cross_compiler_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    other = "x86_64" if machine_name() == "aarch64" else "aarch64"
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BuildError, match=f"{other}-linux-gnu-g") as caught:
        find_toolchain(other)
    assert "apt-get install g++-" in (caught.value.mend or "")


def test_a_gpu_takes_layers(built_home: Home, bundle: Bundle, llama_source: Path) -> None:
    """Hybrid offload, where a GPU is at hand: llama-bench sees the device of the bundle."""
    from quantmint.native.build import build_kernel
    from quantmint.native.probes.answers import answer
    from quantmint.native.probes.look import look

    cuda = kernel_named("cuda")
    said = answer(cuda, look([cuda]))
    if not (said.builds and said.runs):
        pytest.skip(said.summary)
    made = build_kernel(built_home, Store(built_home.store).open(), cuda, print)
    watched = run_watched(Command(argv=[*made.command("llama-bench"), "--list-devices"]))
    assert "CUDA0" in watched.finished.stdout + watched.finished.stderr
    assert {path.name for path in watched.kernels} == {
        cuda.library, bundle.kernel.library,
    }  # fmt: skip
