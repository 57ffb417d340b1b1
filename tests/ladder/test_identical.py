"""Every file of the ladder equals llama-quantize's, header included."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from ladder.models import Shape, write_imatrix, write_model
from ladder.programs import Programs, assert_same, compare, find_programs

SMALL = Shape(layers=2, inner=256, vocabulary=64)
SLOW = Shape(layers=1, inner=256, vocabulary=64, rows=24)  # for ggml's slowest types
NEEDS_IMATRIX = {
    "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "Q2_K_S",
}  # fmt: skip
SEARCHED = NEEDS_IMATRIX | {"IQ3_S", "IQ3_M", "IQ4_NL", "IQ4_XS"}
COMMON = ["Q2_K", "Q3_K_M", "Q4_0", "Q4_1", "Q4_K_S", "Q4_K_M", "Q5_1", "Q5_K_M", "Q6_K", "Q8_0"]


@pytest.fixture(scope="module")
def programs(request: pytest.FixtureRequest) -> Programs:
    return find_programs(request)


@pytest.fixture(scope="module")
def all_types(programs: Programs) -> list[str]:
    command = [str(programs.ladder), "--list-types"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_every_type_without_importance(
    programs: Programs, all_types: list[str], tmp_path: Path
) -> None:
    source = write_model(tmp_path / "a-F16.gguf", SMALL)
    compare(programs, source, tmp_path, [t for t in all_types if t not in SEARCHED])


def test_searched_types_without_importance(programs: Programs, tmp_path: Path) -> None:
    source = write_model(tmp_path / "a-F16.gguf", SLOW)
    compare(programs, source, tmp_path, sorted(SEARCHED - NEEDS_IMATRIX))


def test_every_type_with_importance(
    programs: Programs, all_types: list[str], tmp_path: Path
) -> None:
    source = write_model(tmp_path / "a-F16.gguf", SLOW)
    matrix = write_imatrix(tmp_path / "imatrix.gguf", SLOW)
    compare(programs, source, tmp_path, all_types, "--imatrix", str(matrix))


def test_a_variant_that_needs_another_types_tables(programs: Programs, tmp_path: Path) -> None:
    """IQ2_M's embedding is IQ3_S: its tables are built in a child whose parent has threads."""
    source = write_model(tmp_path / "a-F16.gguf", SLOW)
    matrix = write_imatrix(tmp_path / "imatrix.gguf", SLOW)
    compare(programs, source, tmp_path, ["IQ2_M"], "--imatrix", str(matrix))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("kind", ["bf16", "f32"])
def test_precisions_and_threads(
    programs: Programs, tmp_path: Path, kind: str, threads: int
) -> None:
    source = write_model(tmp_path / f"a-{kind}.gguf", SMALL, kind=kind, seed=threads)
    variants = [*COMMON, "F16", "BF16", "F32", "COPY"]
    compare(programs, source, tmp_path, variants, threads=threads)


@pytest.mark.parametrize("shape", [
    pytest.param(Shape(tied=True, layers=2, vocabulary=64), id="tied embeddings"),
    pytest.param(Shape(width=576, inner=768, heads=9, kv_heads=3, layers=1, vocabulary=64),
                 id="rows of 576: other types than planned"),
    pytest.param(Shape(width=100, inner=200, heads=5, kv_heads=5, layers=1, vocabulary=64),
                 id="rows of 100: F16"),
    pytest.param(Shape(arch="phi3", fused=True, layers=9, vocabulary=64), id="phi3"),
    pytest.param(Shape(arch="llama", layers=9, heads=8, kv_heads=2, vocabulary=64), id="grouped"),
])  # fmt: skip
def test_shapes(programs: Programs, tmp_path: Path, shape: Shape) -> None:
    source = write_model(tmp_path / "a-F16.gguf", shape)
    compare(programs, source, tmp_path, [*COMMON, "Q5_0", "MXFP4_MOE"])


@pytest.mark.parametrize("threads", [1, 3])
def test_experts_with_importances_of_their_own(
    programs: Programs, tmp_path: Path, threads: int
) -> None:
    shape = Shape(arch="phimoe", experts=3, layers=1, inner=256, vocabulary=64)
    source = write_model(tmp_path / "moe.gguf", shape)
    matrix = write_imatrix(tmp_path / "imatrix.gguf", shape)
    options = ("--imatrix", str(matrix))
    compare(programs, source, tmp_path, [*COMMON, "MXFP4_MOE"], *options, threads=threads)


@pytest.mark.parametrize("options", [
    pytest.param((), id="merged"),
    pytest.param(("--keep-split",), id="as many parts"),
    pytest.param(("--pure",), id="pure"),
    pytest.param(("--leave-output-tensor",), id="output left"),
    pytest.param(("--output-tensor-type", "q5_1", "--token-embedding-type", "F16"), id="ends"),
    pytest.param(("--tensor-type", "attn_v=q8_0", "--tensor-type", "blk.1.ffn_.*=q5_k"),
                 id="named tensors"),
    pytest.param(("--override-kv", "general.name=str:other", "--override-kv", "a.b=int:-3",
                  "--override-kv", "c.d=float:1.5", "--override-kv", "e=bool:true"), id="keys"),
])  # fmt: skip
def test_split_input_and_options(
    programs: Programs, tmp_path: Path, options: tuple[str, ...]
) -> None:
    source = write_model(tmp_path / "a.gguf", SMALL, tensors_per_part=6)
    compare(programs, source, tmp_path, ["Q2_K", "Q4_K_M", "Q4_0", "F16", "COPY"], *options)


def test_quantized_input(programs: Programs, tmp_path: Path) -> None:
    source = write_model(tmp_path / "a.gguf", SMALL)
    programs.reference(source, tmp_path / "in", "Q5_K_M")
    quantized = tmp_path / "in" / "a-Q5_K_M.gguf"
    compare(programs, quantized, tmp_path, ["Q2_K", "Q6_K", "F32"], "--allow-requantize")


def test_half_of_an_importance_matrix(programs: Programs, tmp_path: Path) -> None:
    source = write_model(tmp_path / "a.gguf", SMALL)
    matrix = write_imatrix(tmp_path / "imatrix.gguf", SMALL, skip="ffn_down")
    options = ("--imatrix", str(matrix), "--exclude-weights", "attn_q")
    compare(programs, source, tmp_path, ["Q2_K", "Q4_0", "Q4_K_M"], *options)


def test_small_memory_changes_no_byte(programs: Programs, tmp_path: Path) -> None:
    source = write_model(tmp_path / "a.gguf", SMALL)
    for variant in COMMON:
        programs.reference(source, tmp_path / "theirs", variant)
    command = programs.command(source, tmp_path / "ours", COMMON, "--memory", "200000", threads=3)
    subprocess.run(command, capture_output=True, check=True)
    assert_same(tmp_path / "ours", tmp_path / "theirs")


def test_digests_are_those_of_the_bytes(programs: Programs, tmp_path: Path) -> None:
    source = write_model(tmp_path / "a.gguf", SMALL, tensors_per_part=6)
    command = programs.command(source, tmp_path / "out", ["Q4_K_M", "Q2_K", "COPY"], threads=3)
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    events = [event for event in map(json.loads, lines) if event["event"] == "file"]
    assert [event["file"]["variant"] for event in events] == ["Q4_K_M", "Q2_K", "COPY"]
    for facts in (event["file"] for event in events):
        data = (tmp_path / "out" / facts["name"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == facts["sha256"]
        assert len(data) == facts["size"]
        assert len(facts["tensors"]) == 21
        for tensor in facts["tensors"]:
            part = data[tensor["offset"] : tensor["offset"] + tensor["size"]]
            assert hashlib.sha256(part).hexdigest() == tensor["sha256"], tensor["name"]


REFUSED = [
    pytest.param("IQ2_XXS", (), "requires an imatrix", id="no matrix at all"),
    pytest.param("Q2_K_S", ("--imatrix", "partial"), "Missing importance matrix", id="no entry"),
    pytest.param("Q4_K_M", ("--imatrix", "other"), "is different from tensor size", id="size"),
    pytest.param("Q4_0", ("--output-tensor-type", "q9"), "invalid ggml_type", id="type"),
    pytest.param("Q1_0", ("--tensor-type", "attn_v=q1_0"), "no tensor type fallback", id="shape"),
]


@pytest.mark.parametrize(("variant", "options", "reason"), REFUSED)
def test_refuses_what_llama_quantize_refuses(
    programs: Programs, tmp_path: Path, variant: str, options: tuple[str, ...], reason: str
) -> None:
    shape = Shape(layers=1, vocabulary=64, width=576, heads=9, kv_heads=3)
    shape = shape if reason.startswith("no tensor") else SMALL
    source = write_model(tmp_path / "a.gguf", shape)
    paths = {
        "partial": str(write_imatrix(tmp_path / "partial.gguf", shape, skip="ffn_down")),
        "other": str(write_imatrix(tmp_path / "other.gguf", Shape(layers=2, inner=512))),
    }
    words = [paths.get(word, word) for word in options]
    theirs = programs.reference(source, tmp_path / "theirs", variant, *words)
    assert theirs.returncode != 0
    assert reason in theirs.stdout + theirs.stderr
    command = programs.command(source, tmp_path / "ours", ["Q8_0", variant], *words)
    ours = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ours.returncode == 2
    assert reason in json.loads(ours.stdout.splitlines()[-1])["message"]
    assert not list((tmp_path / "ours").glob("*.gguf*"))
