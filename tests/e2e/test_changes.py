"""What each change re-makes, and nothing else: a table of changes, each on top of the one before.

The source is a Hub repository, so that upstream changes are commits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from changing import WORDS, Changing
from quantmint.native.kernels import host_kernel
from quantmint.registry.store import Store

pytestmark = pytest.mark.e2e

KERNEL = host_kernel().name

# Names of assets without the model; `_on` stands for the kernel.
SOURCE, FP16, MATRIX, REPORT = "source_weights", "fp16_gguf", "imatrix", "report"
BOTH = {"Q8_0", "Q4_K_M"}
ASSAYS = {"Q8_0_on", "Q4_K_M_on"}
REST = BOTH | ASSAYS | {REPORT}


@dataclass(frozen=True)
class Change:
    """One change, what is made because of it, and a reason that is given for one of them."""

    name: str
    do: Callable[[Changing], object]
    made: set[str]
    of: str = ""
    says: str = ""


def rewrite(name: str, change: Callable[[str], str]) -> Callable[[Changing], object]:
    """Return what changes one text file of the checkpoint, and commits."""

    def do(changing: Changing) -> None:
        path = changing.checkpoint / name
        path.write_text(change(path.read_text() if path.exists() else ""))
        changing.commit()

    return do


def other_weights(changing: Changing) -> None:
    path = changing.checkpoint / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 0x01  # one bit of the last weight
    path.write_bytes(data)
    changing.commit()


def lose_variant(changing: Changing) -> None:
    known = json.loads(changing.run("build", changing.file, "--json").out)
    row = next(row for row in known["variants"] if row["variant"] == "Q4_K_M")
    Store(changing.home.store).path(row["sha256"]).unlink()


def nothing(_: Changing) -> None:
    """The same again."""


def template(text: str) -> str:
    """Let every conversation begin with another word."""
    config = json.loads(text)
    config["chat_template"] = "{{ 'Hello ' }}" + config["chat_template"]
    return json.dumps(config, indent=2)


CHANGES = (
    Change("first build", nothing, {SOURCE, FP16, MATRIX} | REST, SOURCE, "never built"),
    Change("nothing", nothing, set()),
    Change("README upstream", rewrite("README.md", lambda _: "Read me."), set()),
    Change("generation config upstream, of no use to llama.cpp",
           rewrite("generation_config.json", lambda _: '{"max_new_tokens": 77}'), {SOURCE, FP16},
           SOURCE, r"^upstream changed: generation_config.json \(commit \w{12} -> \w{12}\)$"),
    Change("chat template upstream", rewrite("tokenizer_config.json", template),
           {SOURCE, FP16, MATRIX} | REST, "Q8_0", "fp16_gguf changed: key tokenizer.chat_template"),
    Change("one weight upstream", other_weights, {SOURCE, FP16, MATRIX} | REST,
           FP16, "source_weights changed: model.safetensors"),
    Change("a gate", lambda p: p.edit("tasks: false}", "tasks: false}\ngates: {max_kld: 0.9}"),
           ASSAYS | {REPORT}, "Q8_0_on", "gates.max_kld: none -> 0.9"),
    Change("the prompt", lambda p: p.edit("chunks: 4, tasks", "chunks: 4, prompt: Hello, tasks"),
           ASSAYS | {REPORT}, "Q8_0_on", "assay.prompt: Can you introduce .NET -> Hello"),
    Change("the assay text", lambda p: (p.folder / "assay.txt").write_text(WORDS * 130),
           ASSAYS | {REPORT}, "Q4_K_M_on", r"text_sha256: \w{12} -> \w{12}"),
    Change("the calibration text", lambda p: (p.folder / "calibration.txt").write_text(WORDS * 110),
           {MATRIX} | REST, MATRIX, r"text_sha256: \w{12} -> \w{12}"),
    Change("a variant more", lambda p: p.edit("[Q8_0, Q4_K_M]", "[Q8_0, Q4_K_M, Q2_K]"),
           {"Q2_K", "Q2_K_on", REPORT}, REPORT, "made before mini/Q2_K_on_"),
    Change("a variant less", lambda p: p.edit("[Q8_0, Q4_K_M, Q2_K]", "[Q8_0, Q4_K_M]"),
           {REPORT}, REPORT, "mini/Q2_K_on_.* is no input of it any more"),
    Change("a file lost from the store", lose_variant, {"Q4_K_M"},
           "Q4_K_M", "its bytes are gone from the store"),
    Change("a comment in the model file", lambda p: p.edit("title:", "# Yes.\ntitle:"), set()),
)  # fmt: skip


def test_each_change_makes_exactly_what_it_changes(changing: Changing) -> None:
    wrong = []
    for change in CHANGES:
        change.do(changing)
        made = changing.build()["made"]
        short = {name.removeprefix("mini/").replace(f"_on_{KERNEL}", "_on"): why
                 for name, why in made.items()}  # fmt: skip
        if change.name == "first build":
            short.pop(f"kernels/{KERNEL}", None)
        if set(short) != change.made:
            wrong.append(f"{change.name}: made {short}, not {sorted(change.made)}")
        elif change.of and re.search(change.says, short[change.of]) is None:
            wrong.append(f"{change.name}: says {short[change.of]!r}, not {change.says!r}")
    assert not wrong, "\n".join(wrong)


def test_another_compiler_would_make_the_kernel_and_perhaps_the_rest(
    changing: Changing, tmp_path: Path
) -> None:
    other = tmp_path / "c++"
    other.write_text("#!/bin/sh\n[ $1 = -dumpmachine ] && echo x86_64-linux-gnu || echo c++ 99\n")
    other.chmod(0o755)
    changing.build()
    ran = changing.run("plan", changing.file, "--json", CXX=str(other))
    steps = {step["asset"]: step["reason"] for step in json.loads(ran.out)["steps"]}
    assert re.fullmatch(r"compiler: \w+ -> \w+", steps[f"kernels/{KERNEL}"])
    assert steps["mini/fp16_gguf"] == f"kernels/{KERNEL} is out of date"
    assert steps["mini/source_weights"] is None


def test_a_hub_that_is_away_keeps_nothing_from_being_built(changing: Changing) -> None:
    changing.build()
    away = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    ran = changing.run("build", changing.file, **away)
    assert ran.code == 0, ran.err
    assert "nothing to build" in ran.out
    asked = changing.run("build", changing.file, "--refresh", **away)
    assert asked.code == 3
    assert "can't be reached" in asked.err or "does not answer" in asked.err


def test_outdated_looks_upstream_and_says_why(changing: Changing) -> None:
    changing.build()
    words = ("outdated", "--built", changing.file, "--exit-code")
    ran = changing.run(*words)
    assert ran.code == 0, ran.err
    assert re.fullmatch(r"mini \(upstream commit \w{12}\): up to date\n", ran.out)
    (changing.checkpoint / "generation_config.json").write_text('{"max_new_tokens": 99}')
    changing.commit()
    planned = json.loads(changing.run("plan", changing.file, "--json").out)
    assert all(step["reason"] is None for step in planned["steps"])  # a plan asks no Hub
    ran = changing.run(*words)
    assert ran.code == 1
    rows = {line.split()[0]: line for line in ran.out.splitlines() if line.startswith("mini/")}
    assert "upstream changed: generation_config.json" in rows["mini/source_weights"]
    assert "perhaps  mini/source_weights is out of date" in rows["mini/fp16_gguf"]
    away = changing.run(*words, HF_ENDPOINT="http://127.0.0.1:9")
    assert away.code == 1
    assert "not looked at:" in away.out
    planned = json.loads(changing.run("plan", changing.file, "--json").out)
    found = {step["asset"]: step["certain"] for step in planned["steps"] if step["reason"]}
    assert found["mini/source_weights"]
    assert not found["mini/report"]


def test_force_does_all_work_again_and_gives_the_same_bytes(changing: Changing) -> None:
    before = {row["variant"]: row for row in changing.build()["variants"]}
    ran = changing.run("build", changing.file, "--force", "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    made = {name.removeprefix("mini/").replace(f"_{KERNEL}", "") for name in found["made"]}
    assert made == {SOURCE, FP16, MATRIX} | REST
    for row in found["variants"]:
        assert row["sha256"] == before[row["variant"]]["sha256"]
        assert row["cached"] is False
    said = [line for line in ran.err.splitlines() if "convert_hf_to_gguf.py" in line]
    assert len(said) == 1  # once in a run, though several steps ask for the same work
