"""Our tables of types, variants and kernels against the pinned llama.cpp source."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from quantmint.assets.sources.checkpoint import supported_architectures
from quantmint.native.ftypes import FTYPES
from quantmint.native.matrix import load_matrix, matrix
from quantmint.native.pin import current_pin
from quantmint.registry import gguf
from quantmint.registry.gguf_types import TENSOR_TYPES

pytestmark = pytest.mark.native


def test_tensor_types_are_those_of_ggml(llama_source: Path) -> None:
    header = (llama_source / "ggml/include/ggml.h").read_text()
    body = header[header.index("enum ggml_type {") :].partition("};")[0]
    theirs = {
        int(number): name
        for name, number in re.findall(r"^\s*GGML_TYPE_(\w+)\s*=\s*(\d+)", body, re.MULTILINE)
        if name != "COUNT"
    }
    assert {n: t.name for n, t in TENSOR_TYPES.items()} == theirs


def test_block_sizes_are_those_of_the_vendored_gguf_library(llama_source: Path) -> None:
    # By path: another test may have imported the installed gguf package, which is older.
    path = llama_source / "gguf-py" / "gguf" / "constants.py"
    spec = importlib.util.spec_from_file_location("vendored_gguf_constants", path)
    assert spec is not None
    assert spec.loader is not None
    constants = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(constants)
    theirs = {int(kind): sizes for kind, sizes in constants.GGML_QUANT_SIZES.items()}
    assert len(theirs) > 25
    for number, ours in TENSOR_TYPES.items():
        if number in theirs:
            assert (ours.block, ours.size) == theirs[number], ours.name


def test_variants_are_those_of_llama_quantize(llama_source: Path) -> None:
    text = (llama_source / "tools/quantize/quantize.cpp").read_text()
    rows = text[text.index("QUANT_OPTIONS = {") :].partition("};")[0]
    theirs = set(re.findall(r'^\s*\{ "(\w+)",', rows, re.MULTILINE))
    aliases = {"Q3_K", "Q4_K", "Q5_K"}
    not_products = {"F16", "BF16", "F32", "COPY", "Q1_0", "Q2_0"}
    assert set(FTYPES) == theirs - aliases - not_products


# What llama.cpp calls a feature, and the CPU flags that it stands for.
FEATURES = {
    "SSE42": ("sse4_2",), "AVX": ("avx",), "F16C": ("f16c",), "FMA": ("fma",), "AVX2": ("avx2",),
    "BMI2": ("bmi2",), "AVX_VNNI": ("avx_vnni",), "AVX512_VBMI": ("avx512vbmi",),
    "AVX512": ("avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw"),
    "AVX512_VNNI": ("avx512_vnni",), "AVX512_BF16": ("avx512_bf16",),
    "AMX_TILE": ("amx_tile",), "AMX_INT8": ("amx_int8",),
    "DOTPROD": ("asimddp",), "FP16_VECTOR_ARITHMETIC": ("fphp", "asimdhp"), "SVE": ("sve",),
    "MATMUL_INT8": ("i8mm",), "SVE2": ("sve2",), "SME": ("sme",), "NOSVE": (),
}  # fmt: skip


def test_kernels_are_those_of_the_build(llama_source: Path) -> None:
    text = (llama_source / "ggml/src/CMakeLists.txt").read_text()
    text = text[text.index("if (GGML_CPU_ALL_VARIANTS)") :].partition('STREQUAL "PowerPC"')[0]
    rows = re.findall(r"ggml_add_cpu_backend_variant\((\S+?)((?: +[A-Z0-9_]+)*)\)", text)
    theirs = {
        f"ggml-cpu-{name}": [flag for word in words.split() for flag in FEATURES[word]]
        for name, words in rows
        if not name.startswith("android")
    }
    assert len(theirs) == 14 + 8 + 3
    assert {k.target: list(k.run.cpu) for k in matrix() if k.kind == "cpu"} == theirs


def test_accelerators_are_targets_of_the_build(llama_source: Path) -> None:
    options = (llama_source / "ggml/CMakeLists.txt").read_text()
    for kernel in matrix():
        if kernel.kind != "cpu":
            path = llama_source / "ggml/src" / kernel.target / "CMakeLists.txt"
            assert f"ggml_add_backend_library({kernel.target}" in path.read_text()
        for option in [*load_matrix().options, *kernel.options]:
            known = re.search(rf"\b(?:option|set)\s*\({option}\s", options)
            assert known or option.startswith("CMAKE_"), option


def test_devices_are_called_as_llama_cpp_calls_them(llama_source: Path) -> None:
    headers = "".join(p.read_text() for p in (llama_source / "ggml/include").glob("*.h"))
    headers += (llama_source / "ggml/src/ggml-metal/ggml-metal.cpp").read_text()
    for kernel in matrix():
        if kernel.force.device:
            assert f'_NAME "{kernel.force.device.rstrip("0")}"' in headers, kernel.name


def test_the_pin_names_the_commit_of_its_changelog(llama_source: Path) -> None:
    changelog = (llama_source.parents[1] / "CHANGELOG.md").read_text()
    assert f"ggml-org/llama.cpp@{current_pin().commit}" in changelog
    newest = re.search(r"llama\.cpp@(\w+)", changelog)
    assert newest is not None
    assert newest[1] == current_pin().commit


def test_the_phi_architectures_are_supported_and_their_cousins_are_not(llama_source: Path) -> None:
    known = supported_architectures(llama_source)
    assert {"PhiForCausalLM", "Phi3ForCausalLM", "PhiMoEForCausalLM"} <= known
    assert not {"Phi3VForCausalLM", "Phi3SmallForCausalLM"} & known


def test_every_vocabulary_of_the_source_passes_the_strict_gate(llama_source: Path) -> None:
    files = sorted(llama_source.glob("models/ggml-vocab-*.gguf"))
    assert len(files) >= 15
    for path in files:
        assert "tokenizer.ggml.tokens" in gguf.read(path).values, path.name
