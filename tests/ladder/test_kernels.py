"""The quantization kernels give the bytes of ggml: every type, instruction set, kind of weights."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from ladder.quantizer import QuantizerBuild

# Blocks of the type's own size, for each mode; half of the time goes into IQ4_XS, ggml's slowest.
BLOCKS = {
    "q4_0": 20000,
    "q4_1": 20000,
    "q5_0": 20000,
    "q5_1": 20000,
    "q8_0": 20000,
    "q2_K": 2000,
    "q3_K": 4000,
    "q4_K": 2000,
    "q5_K": 2000,
    "q6_K": 4000,
    "iq4_nl": 10000,
    "iq4_xs": 1500,
    "tq1_0": 4000,
    "tq2_0": 4000,
    "mxfp4": 20000,
    "iq3_xxs": 400,
    "iq3_s": 400,
    "iq2_xxs": 400,
    "iq2_xs": 400,
    "iq2_s": 800,
}
NEED_IMATRIX = {"iq2_xxs", "iq2_xs"}
LINE = re.compile(
    r"(\w+) +(with|without) imatrix +(\d+) blocks  ([\w ]+?)  +[\d.]+ s  (\d+) differ"
)


@pytest.fixture(scope="session")
def verify(quantizer_build: QuantizerBuild) -> Path:
    return quantizer_build.program("quantmint-quant-verify")


def _call(program: Path, *words: str, isa: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "QUANTMINT_QUANT_ISA"}
    environment["GGML_NO_BACKTRACE"] = "1"
    if isa is not None:
        environment["QUANTMINT_QUANT_ISA"] = isa
    command = [str(program), *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize("kind", BLOCKS)
def test_every_kernel_gives_the_bytes_of_ggml(verify: Path, kind: str) -> None:
    modes = ["with"] if kind in NEED_IMATRIX else ["without", "with"]
    blocks = str(BLOCKS[kind] * len(modes))
    done = _call(verify, "--type", kind, "--blocks", blocks, "--threads", "2", "--seed", "7")
    assert done.returncode == 0, done.stdout + done.stderr
    found = LINE.findall(done.stdout)
    assert [found_line[:2] for found_line in found] == [(kind, mode) for mode in modes]
    assert all(differ == "0" for _, _, _, _, differ in found)
    assert all(int(n) >= BLOCKS[kind] for _, _, n, _, _ in found)
    assert "no kernel" not in done.stdout


def test_the_two_smallest_types_give_the_bytes_of_ggml(verify: Path) -> None:
    # In one run: ggml takes seconds to prepare their common lattice.
    done = _call(verify, "--type", "iq1_s,iq1_m", "--blocks", "1200", "--threads", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [(name, mode, differ) for name, mode, _, _, differ in LINE.findall(done.stdout)] == [
        ("iq1_s", "with", "0"),
        ("iq1_m", "without", "0"),
        ("iq1_m", "with", "0"),
    ]


def test_one_wrong_bit_fails_and_shows_the_block_and_its_inputs(verify: Path) -> None:
    done = _call(verify, "--type", "q4_K", "--imatrix", "with", "--blocks", "5000", "--sabotage")
    assert done.returncode == 1
    assert "DIFFERS: q4_K with imatrix" in done.stdout
    shown = {line.split(" ", 1)[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert len(shown["weights"]) == len(shown["importances"]) == 256
    assert all("0x" in number for number in shown["weights"])
    assert len(shown["ours"][0]) == len(shown["ggml's"][0]) == 2 * 144
    assert shown["ours"] != shown["ggml's"]


def test_the_environment_forces_a_lesser_instruction_set_and_never_a_better_one(
    verify: Path,
) -> None:
    best = _call(verify, "--which").stdout.strip()
    lesser = _call(verify, "--digest", "--type", "q8_0", "--blocks", "1").stdout
    here = [line.split()[3] for line in lesser.splitlines() if " without " in line]
    assert here[0] == best
    assert here[-1] == "scalar"
    for isa in here:
        assert _call(verify, "--which", isa=isa).stdout.strip() == isa
    assert _call(verify, "--which", isa="altivec").stdout.strip() == best


def test_digests_do_not_depend_on_the_instruction_set(verify: Path) -> None:
    # ggml takes seconds to prepare the lattices of the others.
    kinds = [kind for kind in BLOCKS if not kind.startswith("iq2")]
    done = _call(verify, "--digest", "--blocks", "200", "--type", ",".join(kinds))
    by_case: dict[tuple[str, ...], set[str]] = {}
    for line in done.stdout.splitlines():
        name, mode, _, _, value = line.split()
        by_case.setdefault((name, mode), set()).add(value)
    assert len(by_case) == 2 * len(kinds)
    assert all(len(values) == 1 for values in by_case.values())
    assert len({next(iter(v)) for v in by_case.values()}) > len(kinds)


def test_an_unknown_type_is_refused(verify: Path) -> None:
    done = _call(verify, "--type", "q9_Z")
    assert done.returncode == 2
    assert "unknown type: q9_Z" in done.stderr


def test_the_benchmark_measures_kernels_and_ggml(quantizer_build: QuantizerBuild) -> None:
    program = quantizer_build.program("quantmint-quant-bench")
    done = _call(program, "--json", "--type", "q6_K,iq4_nl", "--seconds", "0.05")
    rows = json.loads(done.stdout)
    assert [(row["type"], row["imatrix"]) for row in rows] == [
        ("q6_K", False),
        ("q6_K", True),
        ("iq4_nl", False),
        ("iq4_nl", True),
    ]
    assert all(row["ggml"] > 0 for row in rows)
