"""The kernel matrix: rows that hold together, and the right choice for CPUs of every kind."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from quantmint.errors import UserError
from quantmint.native import matrix as matrix_module
from quantmint.native.host import darwin_flags
from quantmint.native.kernels import (
    choose,
    cpu_flags,
    host_kernel,
    kernel_named,
    machine_name,
    matrix,
    missing_here,
    runnable,
    runs_here,
    system_name,
)
from quantmint.native.matrix import Matrix

HASWELL = {"sse4_2", "avx", "f16c", "fma", "avx2", "bmi2"}
SKYLAKE = HASWELL | {"avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw"}
ZEN4 = SKYLAKE | {"avx512vbmi", "avx512_vnni", "avx512_bf16"}


ARM = {"asimddp", "fphp", "asimdhp"}


def best(machine: str, flags: set[str], system: str = "linux") -> str | None:
    found = runnable(machine, frozenset(flags), system)
    return found[-1].name if found else None


def test_rows_are_distinct_and_ordered() -> None:
    rows = matrix()
    assert len({row.name for row in rows}) == len({row.target for row in rows}) == len(rows)
    for at, row in enumerate(rows):
        for later in rows[at + 1 :]:
            if (later.kind, later.system, later.machines) == (row.kind, row.system, row.machines):
                stands = f"{later.name} stands after {row.name}"
                assert row.kind != "cpu" or not set(later.run.cpu) < set(row.run.cpu), stands


@pytest.mark.parametrize(
    ("machine", "flags", "name"),
    [
        ("x86_64", set(), "x64"),
        ("x86_64", {"sse4_2"}, "sse42"),
        ("x86_64", HASWELL, "haswell"),
        ("x86_64", HASWELL | {"avx_vnni"}, "alderlake"),
        ("x86_64", HASWELL - {"avx"}, "sse42"),
        ("x86_64", SKYLAKE, "skylakex"),
        ("x86_64", SKYLAKE | {"avx512_vnni"}, "cascadelake"),
        ("x86_64", ZEN4, "zen4"),
        ("x86_64", ZEN4 | {"amx_tile", "amx_int8"}, "sapphirerapids"),
        ("x86_64", ZEN4 - {"avx2"}, "piledriver"),
        ("aarch64", set(), "armv8.0"),
        ("aarch64", {"asimddp"}, "armv8.2-dotprod"),
        ("aarch64", {"asimddp", "asimdhp"}, "armv8.2-dotprod"),
        ("aarch64", ARM | {"sve", "i8mm", "sve2"}, "armv8.6-sve2"),
        ("aarch64", ARM | {"sve", "i8mm", "sme"}, "armv9.2-sme"),
        ("aarch64", ARM | {"sve", "i8mm", "sve2", "sme"}, "armv9.2-sve2-sme"),
        ("aarch64", ARM | {"i8mm", "sve2", "sme"}, "armv8.2-fp16"),
        ("aarch64", ZEN4, "armv8.0"),
        ("riscv64", ZEN4, None),
        ("", set(), None),
    ],
)
def test_the_best_kernel_of_a_cpu(machine: str, flags: set[str], name: str | None) -> None:
    assert best(machine, flags) == name


def test_the_best_kernel_of_a_mac() -> None:
    key = "hw.optional.arm.FEAT_"
    said = f"{key}DotProd: 1\n{key}I8MM: {{}}\n{key}SVE: 0"
    assert best("aarch64", set(darwin_flags(said.format(0))), "darwin") == "apple-m1"
    assert best("aarch64", set(darwin_flags(said.format(1))), "darwin") == "apple-m2-m3"
    m4 = said.format(1) + f"\n{key}SME: 1\n"
    assert best("aarch64", set(darwin_flags(m4)), "darwin") == "apple-m4"
    assert best("aarch64", set(), "darwin") is None
    assert best("x86_64", ZEN4, "darwin") is None


def test_this_machine_has_one() -> None:
    assert host_kernel() in runnable(machine_name(), cpu_flags(), system_name())
    assert choose("host") == (host_kernel(),)
    assert choose([host_kernel().name]) == (host_kernel(),)


def test_kernels_that_can_not_run_here_are_refused_with_what_is_missing() -> None:
    refused = [kernel for kernel in matrix() if missing_here(kernel)]
    assert refused
    for kernel in refused:
        with pytest.raises(UserError) as caught:
            choose([kernel.name])
        assert f"kernel {kernel.name!r} can't run on this machine: " in caught.value.what
        assert missing_here(kernel)[0].text in caught.value.what
        assert "host" in (caught.value.mend or "")
    assert {k.name for k in refused} >= {"apple-m1", "metal"} or system_name() == "darwin"
    assert [kernel for kernel in matrix() if not runs_here(kernel)] == refused


def test_a_lesser_cpu_lacks_flags() -> None:
    lacking = kernel_named("zen4").lacking("x86_64", frozenset(SKYLAKE))
    assert lacking == ["avx512vbmi", "avx512_vnni", "avx512_bf16"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("target: ggml-cpu-sse42", "target: ggml-cpu-x64", "two kernels have the same target"),
        ("name: sse42", "name: x64", "two kernels have the same name"),
        ("kind: vulkan", "kind: volcano", "Input should be"),
        ('nvcc: "11.8"', 'nvvc: "11.8"', "needs that are not described: nvvc"),
        ('nvcc: "11.8"', 'nvcc: "eleven"', "String should match pattern"),
        ("{of: nvcc,", "{of: nvvc,", "needs that are not described: nvvc"),
        ("compiler: sme", "compiler: sm", "compilers that are not described: sm"),
        ("name: sse42", "name: ../sse42", "String should match pattern"),
        ("tree: hip", "tree: hip\n    taget: x", "Extra inputs are not permitted"),
        ("package: [openblas64", "file: [x], package: [openblas64", "give exactly one of"),
        ("release (\\d+", "release ((\\d+", "no regular expression"),
    ],
)
def test_mistakes_in_the_matrix_are_refused(old: str, new: str, said: str) -> None:
    text = Path(matrix_module.__file__).with_name("kernels.yaml").read_text()
    assert old in text
    with pytest.raises(ValidationError, match=said):
        Matrix.model_validate(yaml.safe_load(text.replace(old, new, 1)))


def test_unknown_kernels_name_the_nearest() -> None:
    with pytest.raises(UserError, match="there is no kernel 'zen5'; did you mean 'zen4'"):
        kernel_named("zen5")


def test_flags_are_read_from_either_kind_of_cpuinfo(tmp_path: Path) -> None:
    x86, arm = tmp_path / "x86", tmp_path / "arm"
    x86.write_text("processor\t: 0\nflags\t\t: fpu sse4_2 avx\n\nflags\t\t: other\n")
    arm.write_bytes(b"processor\t: 0\nFeatures\t: fp asimddp \xff\n")
    assert cpu_flags(x86) == {"fpu", "sse4_2", "avx"}
    assert cpu_flags(arm) >= {"fp", "asimddp"}
    assert cpu_flags(tmp_path / "none") == frozenset()
