"""The probes against what they foretell: the compiler, CMake and the headers of this machine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from quantmint.native.kernels import Kernel, kernel_named, machine_name, matrix
from quantmint.native.matrix import load_matrix
from quantmint.native.probes.answers import answer
from quantmint.native.probes.look import look
from quantmint.native.probes.machine import Machine
from quantmint.native.toolchain import find_toolchain

pytestmark = pytest.mark.native

# The options that llama.cpp compiles a kernel with, by what the kernel needs at run time.
X86 = {
    "sse4_2": "-msse4.2", "avx": "-mavx", "f16c": "-mf16c", "fma": "-mfma", "avx2": "-mavx2",
    "bmi2": "-mbmi2", "avx_vnni": "-mavxvnni", "avx512f": "-mavx512f", "avx512cd": "-mavx512cd",
    "avx512vl": "-mavx512vl", "avx512dq": "-mavx512dq", "avx512bw": "-mavx512bw",
    "avx512vbmi": "-mavx512vbmi", "avx512_vnni": "-mavx512vnni", "avx512_bf16": "-mavx512bf16",
    "amx_tile": "-mamx-tile", "amx_int8": "-mamx-int8",
}  # fmt: skip
ARM = {
    "asimddp": "+dotprod", "fphp": "+fp16", "asimdhp": "+fp16", "sve": "+sve", "i8mm": "+i8mm",
    "sve2": "+sve2", "sme": "+sme",
}  # fmt: skip


@pytest.fixture(scope="module")
def machine() -> Machine:
    """This machine, looked at once."""
    return look(matrix())


def options(kernel: Kernel) -> list[str]:
    flags = kernel.run.cpu
    if kernel.machines == ("x86_64",):
        return [X86[flag] for flag in flags]
    least = "8.2" if flags else "8"
    least = "8.6" if {"i8mm", "sve2"} & set(flags) else least
    least = "9.2" if "sme" in flags else least
    return [f"-march=armv{least}-a" + "".join(dict.fromkeys(ARM[flag] for flag in flags))]


@pytest.mark.parametrize(
    "name", [k.name for k in matrix() if k.kind == "cpu" and k.system == "linux"]
)
def test_a_cpu_kernel_builds_if_the_compiler_knows_its_instructions(
    name: str, machine: Machine
) -> None:
    kernel = kernel_named(name)
    if kernel.machines[0] not in machine.compilers:
        pytest.skip(f"no compiler for {kernel.machines[0]}")
    chain = find_toolchain(kernel.machines[0])
    header = "immintrin.h" if kernel.machines == ("x86_64",) else "arm_neon.h"
    ran = subprocess.run(
        [chain.cxx.path, *options(kernel), "-x", "c++", "-fsyntax-only", "-"],
        input=f"#include <{header}>\n#include <filesystem>\nint main() {{}}\n",
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    asked = answer(kernel, machine)
    assert asked.builds == (ran.returncode == 0), (asked.to_build, ran.stderr)


@pytest.mark.parametrize("name", ["blas", "cuda", "hip"])
def test_a_tree_configures_if_the_probe_says_so(
    name: str, machine: Machine, llama_source: Path, tmp_path: Path
) -> None:
    kernel = kernel_named(name)
    if machine.name not in kernel.machines or machine.system != kernel.system:
        pytest.skip(f"{name} is not for {machine.name}")
    chain = find_toolchain()
    chosen = {**load_matrix().options, **kernel.options, **chain.options}
    chosen |= {"LLAMA_BUILD_UI": "OFF", "LLAMA_BUILD_TESTS": "OFF", "LLAMA_OPENSSL": "OFF"}
    chosen |= {"BUILD_SHARED_LIBS": "ON", "CMAKE_CUDA_ARCHITECTURES": "90"}
    ran = subprocess.run(
        [chain.cmake.path, "-S", llama_source, "-B", tmp_path, "-G", "Ninja",
         *(f"-D{key}={value}" for key, value in chosen.items())],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    asked = answer(kernel, machine)
    assert asked.builds == (ran.returncode == 0), (asked.to_build, ran.stderr[-2000:])


def test_vulkan_headers_are_new_enough_if_they_have_what_the_backend_uses(
    machine: Machine, llama_source: Path
) -> None:
    compiler = shutil.which("c++")
    if "vulkan-headers" not in machine.found or compiler is None:
        pytest.skip("no Vulkan headers")
    used = (llama_source / "ggml/src/ggml-vulkan/ggml-vulkan.cpp").read_text()
    assert "vk::LayerSettingsCreateInfoEXT" in used
    ran = subprocess.run(
        [compiler, "-x", "c++", "-fsyntax-only", "-"],
        input="#include <vulkan/vulkan_core.h>\nVkLayerSettingsCreateInfoEXT info;\n",
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    missing = [m.text for m in answer(kernel_named("vulkan"), machine).to_build]
    too_old = any(text.startswith("Vulkan headers") for text in missing)
    assert too_old == (ran.returncode != 0), (missing, ran.stderr)


def test_the_machine_of_the_probes_is_that_of_the_toolchain(machine: Machine) -> None:
    chain = find_toolchain()
    assert machine.compilers[machine_name()].version.split(".")[0] in chain.cxx.version
    assert machine.found["cmake"] in chain.cmake.version
