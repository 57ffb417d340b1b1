"""The probes: answers for machines of every kind, and looking at programs, files and libraries."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from helpers import Ran
from quantmint.native.kernels import host_kernel, kernel_named, matrix
from quantmint.native.matrix import load_matrix
from quantmint.native.probes.accelerators import accelerators, drm_gpus, nvidia_gpus
from quantmint.native.probes.answers import Answer, answer
from quantmint.native.probes.look import compilers, find, look, version_in
from quantmint.native.probes.machine import Compiler, Machine

Quantmint = Callable[..., Ran]

GCC12 = Compiler("gcc", "12.2.0")
DEBIAN12 = Machine(
    system="linux",
    name="x86_64",
    flags=frozenset({"sse4_2", "avx", "f16c", "fma", "avx2", "bmi2"}),
    compilers={"x86_64": GCC12, "aarch64": GCC12},
    found={"cmake": "3.25.1", "ninja": "1.11.1", "pkg-config": "1.8.1"},
)
CUDA13 = {"nvcc": "13.0", "cudart": "", "cublas": "", "cublas-link": "", "cublas-library": ""}
VULKAN12 = {
    "vulkan-headers": "1.3.239", "vulkan-link": "", "vulkan-library": "",
    "glslc": "2023.2", "spirv-headers": "",
}  # fmt: skip
GPU = {"nvidia-gpu": "", "nvidia-driver": "580.65.06", "libcuda": "", "render-node": ""}


def on(machine: Machine, kernel: str, *more: dict[str, str]) -> Answer:
    found = dict(machine.found)
    for each in more:
        found.update(each)
    return answer(kernel_named(kernel), replace(machine, found=found))


def test_a_kernel_that_builds_and_runs_lacks_nothing() -> None:
    asked = on(DEBIAN12, "haswell")
    assert (asked.builds, asked.runs, asked.summary) == (True, True, "")


def test_nvcc_without_a_gpu_builds_and_can_not_run() -> None:
    asked = on(DEBIAN12, "cuda", CUDA13)
    assert (asked.builds, asked.runs) == (True, False)
    assert asked.summary == "nvcc 13.0 found, no GPU: builds, can't run"
    assert [m.text for m in asked.to_run] == ["no GPU", "no NVIDIA driver", "no libcuda.so.1"]


def test_a_gpu_with_nvcc_builds_and_runs() -> None:
    asked = on(DEBIAN12, "cuda", CUDA13, GPU)
    assert (asked.builds, asked.runs, asked.summary) == (True, True, "")


@pytest.mark.parametrize(
    ("nvcc", "driver", "text"),
    [
        ("13.0", "575.51.03", "NVIDIA driver 575.51.03, needs 580.65"),
        ("14.1", "575.51.03", "NVIDIA driver 575.51.03, needs 580.65"),
        ("12.8", "515.43", "NVIDIA driver 515.43, needs 525.60"),
        ("12.8", "575.51.03", None),
        ("12.8", "", "NVIDIA driver of unknown version, needs 525.60"),
    ],
)
def test_the_driver_is_as_new_as_the_toolkit_asks(nvcc: str, driver: str, text: str | None) -> None:
    asked = on(DEBIAN12, "cuda", CUDA13, GPU, {"nvcc": nvcc, "nvidia-driver": driver})
    assert [m.text for m in asked.to_run] == ([] if text is None else [text])


def test_a_gpu_without_a_toolkit_runs_and_can_not_build() -> None:
    asked = on(DEBIAN12, "cuda", GPU, {"cublas-library": ""})
    assert asked.runs
    assert asked.summary.startswith("no nvcc; ")
    assert asked.summary.endswith(": can't build, runs")
    assert "developer.nvidia.com" in (asked.to_build[0].mend or "")


def test_old_vulkan_headers_are_named_with_both_versions() -> None:
    asked = on(DEBIAN12, "vulkan", VULKAN12, GPU, {"vulkan-driver": ""})
    assert [m.text for m in asked.to_build] == ["Vulkan headers 1.3.239, needs 1.3.275"]
    assert asked.summary == "Vulkan headers 1.3.239, needs 1.3.275: can't build, runs"
    newer = {"vulkan-headers": "1.4.309"}
    assert on(DEBIAN12, "vulkan", VULKAN12, newer).builds
    assert not on(DEBIAN12, "vulkan", VULKAN12, {"vulkan-headers": ""}).builds


def test_every_missing_thing_of_an_sdk_has_its_mend() -> None:
    for kernel in matrix():
        if kernel.kind != "cpu" and kernel.system == "linux":
            asked = on(DEBIAN12, kernel.name)
            assert not asked.builds
            assert not asked.runs
            assert all(m.mend for m in (*asked.to_build, *asked.to_run)), kernel.name


def test_compilers_are_asked_for_what_a_row_needs() -> None:
    old = replace(DEBIAN12, compilers={"x86_64": Compiler("gcc", "10.2.1")})
    assert on(old, "cooperlake").builds
    asked = on(old, "sapphirerapids")
    assert [m.text for m in asked.to_build] == ["GCC 10.2.1, needs 11"]
    assert asked.to_build[0].mend == "apt-get install g++-11; CC=gcc-11 CXX=g++-11"
    clang = replace(DEBIAN12, compilers={"x86_64": Compiler("clang", "11.0.1")})
    assert "clang-12" in (on(clang, "alderlake").to_build[0].mend or "")
    odd = replace(DEBIAN12, compilers={"x86_64": Compiler("tcc", "0.9")})
    assert on(odd, "x64").to_build[0].text == "compiler tcc 0.9, needs GCC 9 or Clang 9"
    none = replace(DEBIAN12, compilers={})
    assert on(none, "x64").to_build[0].text == "no C++ compiler"


def test_arm_kernels_are_built_by_a_cross_compiler() -> None:
    asked = on(DEBIAN12, "armv8.6-sve2")
    assert (asked.builds, asked.runs) == (True, False)
    assert asked.summary == "for aarch64, this is x86_64"
    asked = on(DEBIAN12, "armv9.2-sme")
    assert asked.to_build[0].text == "GCC 12.2.0 for aarch64, needs 14"
    assert asked.to_build[0].mend == "apt-get install g++-14-aarch64-linux-gnu"
    none = replace(DEBIAN12, compilers={"x86_64": GCC12})
    assert on(none, "armv8.0").to_build[0].mend == "apt-get install g++-aarch64-linux-gnu"
    arm = replace(DEBIAN12, name="aarch64", compilers={"aarch64": GCC12}, flags=frozenset())
    assert on(arm, "armv8.0").summary == ""
    assert "g++-x86-64-linux-gnu" in (on(arm, "zen4").to_build[0].mend or "")


def test_a_cpu_without_the_instructions_does_not_run_a_kernel() -> None:
    asked = on(DEBIAN12, "skylakex")
    assert (asked.builds, asked.runs) == (True, False)
    assert asked.summary == "CPU without avx512f avx512cd avx512vl avx512dq avx512bw"


def test_macs() -> None:
    mac = Machine(
        system="darwin", name="aarch64", flags=frozenset({"asimddp"}),
        compilers={"aarch64": Compiler("clang", "16.0.0")},
        found={"cmake": "4.0", "ninja": "1.12", "xcode": "72"},
    )  # fmt: skip
    runs = {kernel.name for kernel in matrix() if answer(kernel, mac).runs}
    assert runs == {"apple-m1", "metal"}
    assert on(mac, "metal").builds
    assert on(mac, "cuda").summary == "for Linux only: can't build, can't run"
    assert on(DEBIAN12, "metal").summary == "for macOS only: can't build, can't run"


def test_cmake_is_asked_for_by_every_row() -> None:
    for kernel in matrix():
        machine = replace(DEBIAN12, system=kernel.system, found={"ninja": "1.11.1"})
        texts = [m.text for m in answer(kernel, machine).to_build]
        assert "no CMake" in texts or machine.name not in kernel.machines, kernel.name


def script(folder: Path, name: str, body: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("body", "version"),
    [
        ("echo 'Cuda compilation tools, release 12.8, V12.8.93'", "12.8"),
        ("echo something else", ""),
        ("exit 1", None),
        ("echo release 12.8; kill -9 $$", None),
    ],
)
def test_programs_say_their_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, version: str | None
) -> None:
    monkeypatch.setenv("CUDACXX", str(script(tmp_path, "my-nvcc", body)))
    monkeypatch.setenv("PATH", f"/usr/bin{os.pathsep}/bin")
    monkeypatch.delenv("CUDA_PATH", raising=False)
    assert find(load_matrix().needs["nvcc"].model_copy(update={"where": ()})) == version


def test_headers_lie_where_the_compiler_of_the_sdk_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sdk = tmp_path / "sdk"
    real = script(sdk, "nvcc", f"echo '#$ TOP={sdk}' >&2")
    monkeypatch.setenv("CUDACXX", str(script(tmp_path / "bin", "nvcc", f'exec {real} "$@"')))
    need = load_matrix().needs["cublas"].model_copy(update={"file": ("$nvcc/include/x.h",)})
    assert find(need) is None
    (sdk / "include").mkdir()
    (sdk / "include" / "x.h").touch()
    assert find(need) == ""


def test_headers_say_their_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = tmp_path / "include" / "vulkan" / "vulkan_core.h"
    header.parent.mkdir(parents=True)
    monkeypatch.setenv("VULKAN_SDK", str(tmp_path))
    need = load_matrix().needs["vulkan-headers"]
    header.write_text(
        "#define VK_HEADER_VERSION 309\n"
        "#define VK_HEADER_VERSION_COMPLETE VK_MAKE_API_VERSION(0, 1, 4, VK_HEADER_VERSION)\n"
    )
    assert find(need) == "1.4.309"
    header.write_bytes(b"\xff\x00 no version")
    assert find(need) == ""
    header.unlink()
    header.mkdir()
    assert find(need) == ""


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("580.65.06\n", "580.65.06"),
        ("NVRM: UNIX x86_64 Kernel Module  535.183.01  Sun\nGCC version:  12.2.0", "535.183.01"),
        ("NVRM: UNIX Open Kernel Module for x86_64  580.65.06  Release", "580.65.06"),
        ("nonsense", ""),
    ],
)
def test_driver_versions_are_read_from_either_file(text: str, version: str) -> None:
    assert version_in(text, load_matrix().needs["nvidia-driver"].says) == version


def test_libraries_are_those_of_the_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need = load_matrix().needs["libcuda"].model_copy(update={"library": ("libquantmint-none.so",)})
    assert find(need) is None
    (tmp_path / "libquantmint-none.so").touch()
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{os.pathsep}{tmp_path}")
    assert find(need) == ""
    assert find(need.model_copy(update={"library": ("libc.so.6",)})) == ""


def test_nothing_is_found_without_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert compilers() == {}
    assert find(load_matrix().needs["openblas"]) is None


def test_this_machine_is_described() -> None:
    machine = look(matrix())
    assert set(machine.found) <= set(load_matrix().needs)
    assert answer(host_kernel(), machine).runs
    assert look([host_kernel()], build=False).found == {}
    # The driver that CUDA needs depends on the toolkit: that is looked at, its headers are not.
    found = look([kernel_named("cuda")], build=False).found
    assert ("nvcc" in found) == (find(load_matrix().needs["nvcc"]) is not None)
    assert "cublas" not in found


def test_gpus_are_read_from_the_driver_and_the_kernel(tmp_path: Path) -> None:
    table = "NVIDIA H200, 9.0, 580.65.06\n"
    assert [str(gpu) for gpu in nvidia_gpus(table)] == [
        "NVIDIA H200 (compute capability 9.0, driver 580.65.06)"
    ]
    assert nvidia_gpus("NVIDIA-SMI has failed\n") == []
    for node, vendor in (("renderD128", "0x8086\n"), ("renderD129", "0x1002\n"), ("card0", "0x0")):
        (tmp_path / node / "device").mkdir(parents=True)
        (tmp_path / node / "device" / "vendor").write_text(vendor)
    (tmp_path / "renderD130").mkdir()
    assert [str(gpu) for gpu in drm_gpus(tmp_path)] == [
        "Intel GPU (/dev/dri/renderD128)", "AMD GPU (/dev/dri/renderD129)",
    ]  # fmt: skip
    assert len(accelerators(tmp_path)) >= 2


def test_the_list_is_readable_at_100_columns(quantmint: Quantmint) -> None:
    ran = quantmint("kernels", "list", env={"COLUMNS": "100"})
    assert ran.code == 0, ran.err
    assert max(len(line) for line in ran.out.splitlines()) <= 100
    rows = {line.split()[0] for line in ran.out.splitlines() if line.strip()}
    assert {kernel.name for kernel in matrix()} <= rows
    assert "this machine's best CPU kernel" in ran.out


def test_a_machine_with_no_tools_is_told_what_to_install(
    quantmint: Quantmint, tmp_path: Path
) -> None:
    ran = quantmint("kernels", "list", env={"COLUMNS": "100", "PATH": str(tmp_path), "CXX": "none"})
    assert ran.code == 0, ran.err
    assert max(len(line) for line in ran.out.splitlines()) <= 100
    assert "no C++ compiler" in ran.out
    assert "apt-get install g++" in ran.out


def test_programs_get_everything(quantmint: Quantmint) -> None:
    facts = json.loads(quantmint("kernels", "list", "--json").out)
    machine = look(matrix())
    assert facts["machine"]["found"] == machine.found
    assert [row["name"] for row in facts["kernels"] if row["best"]] == [host_kernel().name]
    for row in facts["kernels"]:
        asked = answer(kernel_named(row["name"]), machine)
        assert (row["builds"], row["runs"], row["summary"]) == (
            asked.builds, asked.runs, asked.summary,
        )  # fmt: skip
        assert [m["text"] for m in row["missing_to_run"]] == [m.text for m in asked.to_run]
    assert facts["kernels"][0]["library"] == "libggml-cpu-x64.so"


def test_the_doctor_says_what_accelerators_lack(quantmint: Quantmint) -> None:
    ran = quantmint("doctor", "--json")
    rows = {row["what"]: row for row in json.loads(ran.out)}
    machine = look(matrix())
    for kernel in matrix():
        if kernel.kind != "cpu" and kernel.system == machine.system:
            asked = answer(kernel, machine)
            row = rows[f"{kernel.name} kernel"]
            assert row["ok"] == (True if asked.builds and asked.runs else None)
            assert row["found"].startswith(asked.summary or "builds, runs")
            for missing in asked.to_build:
                assert (missing.mend or "") in row["found"]
