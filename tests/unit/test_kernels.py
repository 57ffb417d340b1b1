"""The kernel matrix: rows that hold together, and the right choice for CPUs of every kind."""

from pathlib import Path

import pytest

from quantmint.errors import UserError
from quantmint.native.kernels import (
    choose,
    cpu_flags,
    host_kernel,
    kernel_named,
    machine_name,
    matrix,
    runnable,
)

HASWELL = {"sse4_2", "avx", "f16c", "fma", "avx2", "bmi2"}
SKYLAKE = HASWELL | {"avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw"}
ZEN4 = SKYLAKE | {"avx512vbmi", "avx512_vnni", "avx512_bf16"}


def best(machine: str, flags: set[str]) -> str | None:
    found = runnable(machine, frozenset(flags))
    return found[-1].name if found else None


def test_rows_are_distinct_and_ordered() -> None:
    rows = matrix()
    assert len({row.name for row in rows}) == len({row.target for row in rows}) == len(rows)
    for at, row in enumerate(rows):
        for later in rows[at + 1 :]:
            if later.machine == row.machine:
                assert not set(later.cpu) < set(row.cpu), f"{later.name} stands after {row.name}"


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
        ("aarch64", ZEN4, "armv8.0"),
        ("riscv64", ZEN4, None),
        ("", set(), None),
    ],
)
def test_the_best_kernel_of_a_cpu(machine: str, flags: set[str], name: str | None) -> None:
    assert best(machine, flags) == name


def test_this_machine_has_one() -> None:
    assert host_kernel() in runnable(machine_name(), cpu_flags())
    assert choose("host") == (host_kernel(),)
    assert choose([host_kernel().name]) == (host_kernel(),)


def test_a_kernel_that_can_not_run_here_says_what_it_lacks() -> None:
    name = "armv8.0" if machine_name() == "x86_64" else "x64"
    with pytest.raises(UserError, match=r"can't run on this machine: it lacks machine") as caught:
        choose([name])
    assert "host" in (caught.value.mend or "")
    lacking = kernel_named("zen4").lacking("x86_64", frozenset(SKYLAKE))
    assert lacking == ["avx512vbmi", "avx512_vnni", "avx512_bf16"]


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
