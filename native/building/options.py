"""What llama.cpp is built with: options, tools, and the folder of our own C++."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from quantmint.files import digest_of, sha256_of
from quantmint.native.matrix import Kernel, load_matrix
from quantmint.native.pin import Pin
from quantmint.native.toolchain import Toolchain

Report = Callable[[str], None]

TOOLS: Final = (
    "llama-quantize",
    "llama-perplexity",
    "llama-bench",
    "llama-imatrix",
    "llama-tokenize",
    "llama-completion",
)
OPTIONS: Final[Mapping[str, str]] = {
    "CMAKE_BUILD_TYPE": "Release",
    "BUILD_SHARED_LIBS": "ON",
    "GGML_CPU_ALL_VARIANTS": "ON",
    "GGML_CCACHE": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_SERVER": "OFF",
    "LLAMA_BUILD_APP": "OFF",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_OPENSSL": "OFF",
    # A bundle finds its own libraries beside itself, wherever it is put.
    "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
    "CMAKE_INSTALL_RPATH": "$ORIGIN",
    "LLAMA_BUILD_NUMBER": "0",
    # ggml would ask git for the commit and for changed files of whatever checkout it lies in.
    "GIT_EXE": "",
    "GIT_EXECUTABLE": "",
}
QUANTIZER_OPTIONS: Final[Mapping[str, str]] = {
    "CMAKE_BUILD_TYPE": "Release",
    "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
    "CMAKE_INSTALL_RPATH": "$ORIGIN",
}
LADDER: Final = "quantmint-ladder"
NATIVE: Final = Path(__file__).resolve().parents[1]
QUANTIZER: Final = NATIVE / "quantizer"
TREE_FILE: Final = NATIVE / "one_kernel.cmake"
LOADER_FILE: Final = NATIVE / "own_folder_only.h"


def link_options(chain: Toolchain) -> dict[str, str]:
    """Return options that let a program's own folder win over LD_LIBRARY_PATH (DT_RPATH)."""
    if "linux" not in chain.triple:
        return {}
    kinds = ("EXE", "SHARED", "MODULE")
    return {f"CMAKE_{kind}_LINKER_FLAGS": "-Wl,--disable-new-dtags" for kind in kinds}


def tree_options(kernel: Kernel, chain: Toolchain, pin: Pin) -> dict[str, str]:
    """Return what the kernel's tree is configured with, but for paths."""
    return {
        **OPTIONS,
        **load_matrix().options,
        **link_options(chain),
        "LLAMA_BUILD_COMMIT": pin.commit,
        "GGML_BUILD_COMMIT": pin.commit,
        **kernel.options,
    }


def tree_files_digest() -> str:
    """Return the digest of our own files that take part in configuring and compiling a tree."""
    return digest_of([sha256_of(TREE_FILE), sha256_of(LOADER_FILE)])


def quantizer_digest() -> str:
    """Return the digest of the quantizer's sources."""
    files = (p for p in sorted(QUANTIZER.rglob("*")) if p.suffix in {".cpp", ".h", ".txt"})
    return digest_of([[str(p.relative_to(QUANTIZER)), sha256_of(p)] for p in files])
