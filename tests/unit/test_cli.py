"""The command line as people meet it: help, typos, exit codes, files good and bad."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from gguf_builder import File, sample, scalar
from helpers import Ran
from quantmint.home import Home
from quantmint.registry.cli import COMMANDS, LazyGroup, cli
from quantmint.registry.store import Store

Quantmint = Callable[..., Ran]


def test_help_lists_exactly_the_commands(quantmint: Quantmint) -> None:
    ran = quantmint("--help")
    assert ran.code == 0
    _, _, listed = ran.out.partition("Commands:\n")
    words = [
        line.split()[0] for line in listed.splitlines() if line.startswith("  ") and line[2] != " "
    ]
    assert words == list(COMMANDS)
    assert "6 the registry, 70 a bug" in ran.out


@pytest.mark.parametrize("name", COMMANDS)
def test_each_help_line_is_the_commands_own(name: str) -> None:
    assert isinstance(cli, LazyGroup)
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.name == name
    assert command.get_short_help_str(200) == COMMANDS[name].help


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["biuld", "phi-2"], "there is no command 'biuld'; did you mean 'build'?"),
        (["plan", "phi3-nano"], "there is no model 'phi3-nano'; did you mean 'phi-3-nano'?"),
        (["plan", "phi-3-nano", "-v", "Q4_KM"], "did you mean 'Q4_K_M'?"),
        (["kernels", "build", "zen5"], "there is no kernel 'zen5'; did you mean 'zen4'?"),
        (["plan"], "Missing argument 'MODEL'"),
        (["inspect"], "Missing argument 'FILE'"),
        (["inspect", "/no/such/file"], "/no/such/file is no file"),
        (["models", "--jsn"], "No such option"),
        (["plan", "none.yaml"], "can't be read: No such file"),
    ],
)
def test_typos_exit_with_2(quantmint: Quantmint, words: list[str], said: str) -> None:
    ran = quantmint(*words)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert "Traceback" not in ran.err


def test_models_are_listed(quantmint: Quantmint) -> None:
    rows = json.loads(quantmint("models", "--json").out)
    assert {"phi-3-nano", "phi-2"} <= {row["model"] for row in rows}
    assert "phi-3-nano" in quantmint("models").out


@pytest.mark.parametrize("words", [["models"], ["--help"], ["kernels", "list"]])
def test_a_reader_that_went_away_is_no_error(words: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    ran = subprocess.run(
        [sys.executable, "-m", "quantmint", *words],
        stdout=write, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(write)
    assert ran.stderr == ""
    assert ran.returncode in {0, 1}


def test_inspect_a_good_file(quantmint: Quantmint, tmp_path: Path) -> None:
    path = tmp_path / "good.gguf"
    file = sample()
    file.values.append(("test.nan", scalar(6, float("nan"))))
    path.write_bytes(file.build())
    ran = quantmint("inspect", path, "--tensors")
    assert ran.code == 0
    assert "general.architecture = 'phi3'" in ran.out
    assert "token_embd.weight" in ran.out
    assert "229 weights" in ran.out
    facts = json.loads(quantmint("inspect", path, "--json").out, parse_constant=pytest.fail)
    assert facts["architecture"] == "phi3"
    assert [t["type"] for t in facts["tensors"]] == ["Q8_0", "F16", "F32"]


def test_inspect_a_bad_file(quantmint: Quantmint, tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(File(version=7).build())
    ran = quantmint("inspect", path)
    assert (ran.code, ran.out) == (5, "")
    assert "bad.gguf is no well-formed GGUF file: version 7" in ran.err


def test_verify(quantmint: Quantmint, home: Home) -> None:
    store = Store(home.store).open()
    blob = store.put_bytes(b"sound")
    assert quantmint("verify").out == "1 objects, 0 faults\n"
    path = store.path(blob.sha256)
    path.chmod(0o644)
    path.write_bytes(b"SOUND")
    ran = quantmint("verify")
    assert ran.code == 5
    assert f"corrupt  {path}" in ran.out
    assert "1 of 1 objects are not sound" in ran.err
    found = json.loads(quantmint("verify", "--json").out)
    (fault,) = found.pop("faults")
    assert found == {"objects": 1, "bits": 1}
    assert (fault["verdict"], fault["path"]) == ("corrupt", str(path))


def test_the_base_install_needs_nothing_of_the_mint() -> None:
    code = (
        "import sys\nfrom quantmint.registry.commands import inspect, verify\n"
        "from quantmint.registry import cli\n"
        "heavy = {'dagster', 'mlflow', 'torch', 'transformers', 'numpy', 'llama_cpp'}\n"
        "found = heavy & set(sys.modules)\n"
        "sys.exit(str(found) if found else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
