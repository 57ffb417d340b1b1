"""What an accelerator's SDK adds to a tree: where its compiler is, for which devices, versions."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from quantmint.errors import BuildError, UserError
from quantmint.native.matrix import Kernel
from quantmint.process import Command, Limits, run

CUDA_ARCHITECTURES = "CMAKE_CUDA_ARCHITECTURES"
# Where no GPU is at hand to ask: Hopper, the least that data centres buy today.
DEFAULT_ARCHITECTURE = "90"
# llama.cpp's own list of architectures is taken when none is set.
FAT = "fat"
_ARCHITECTURE = re.compile(r"[0-9]{2,3}[af]?(-real|-virtual)?(;[0-9]{2,3}[af]?(-real|-virtual)?)*")


def sdk_options(kernel: Kernel, wanted: Mapping[str, str]) -> dict[str, str]:
    """Return the CMake options that a kernel's SDK adds on this machine.

    Raises:
        UserError: an architecture has no such name.
    """
    if kernel.kind != "cuda":
        return dict(wanted)
    options = {**wanted}
    chosen = options.pop(CUDA_ARCHITECTURES, None) or host_architecture() or DEFAULT_ARCHITECTURE
    if chosen != FAT:
        if _ARCHITECTURE.fullmatch(chosen) is None:
            raise UserError(
                f"{chosen!r} names no CUDA architectures",
                mend=f"give numbers as in 90 or '86;90', or {FAT} for llama.cpp's own list",
            )
        options[CUDA_ARCHITECTURES] = chosen
    # nvcc leaves the names of its temporary files in the symbol table.
    options["CMAKE_MODULE_LINKER_FLAGS"] = "-Wl,--disable-new-dtags -s"
    return options


def sdk_tools(kernel: Kernel) -> dict[str, str]:
    """Return the versions of an SDK's compilers, by name, for what is compiled by them."""
    found = {}
    if kernel.kind == "cuda":
        found["nvcc"] = says(nvcc())
    if kernel.kind == "vulkan" and (glslc := shutil.which("glslc")):
        found["glslc"] = says(Path(glslc))
    return found


def nvcc() -> Path:
    """Return CUDA's compiler: `CUDACXX`, or the one on the PATH, or that of /usr/local/cuda.

    Raises:
        BuildError: there is none.
    """
    named = [os.environ.get("CUDACXX"), shutil.which("nvcc"), "/usr/local/cuda/bin/nvcc"]
    named += [str(path) for path in sorted(Path("/usr/local").glob("cuda-*/bin/nvcc"))[::-1]]
    for name in named:
        if name and Path(name).is_file():
            return Path(name)
    raise BuildError(
        "nvcc was not found: the CUDA kernel can't be built",
        mend="install the CUDA toolkit, or set CUDACXX to its nvcc",
    )


@cache
def host_architecture() -> str | None:
    """Return this machine's GPU's CUDA architecture as CMake names it (`90`), or None."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=compute_cap", "--format=csv,noheader"]
    said = run(Command(argv=query, limits=Limits(wall_seconds=60)), check=False)
    found = re.search(r"^(\d+)\.(\d)$", said.stdout.strip(), re.MULTILINE)
    return f"{found[1]}{found[2]}" if said.code == 0 and found else None


@cache
def says(program: Path) -> str:
    """Return the last line of what a compiler prints of its version."""
    finished = run(Command(argv=[program, "--version"]))
    return finished.stdout.strip().splitlines()[-1]
