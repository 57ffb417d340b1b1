"""The Python face of the ladder, and its command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from ladder.models import Shape, write_model
from ladder.programs import Programs, find_programs
from quantmint.errors import BuildError, SourceError, UserError
from quantmint.native.ladder.command import quantize as quantize_command
from quantmint.native.ladder.engine import quantize
from quantmint.native.ladder.model import LadderOptions, Progress
from quantmint.native.ladder.naming import file_name

SMALL = Shape(layers=2, inner=256, vocabulary=64)


@pytest.fixture(scope="module")
def programs(request: pytest.FixtureRequest) -> Programs:
    return find_programs(request)


@pytest.mark.parametrize(("source", "name"), [
    ("Phi-3.5-mini-instruct-F16.gguf", "Phi-3.5-mini-instruct-Q4_K_M.gguf"),
    ("big.bf16-00001-of-00003.gguf", "big-Q4_K_M.gguf"),
    ("model.gguf", "model-Q4_K_M.gguf"),
])  # fmt: skip
def test_names(source: str, name: str) -> None:
    assert file_name(Path(source), "Q4_K_M") == name


def test_facts_of_the_files(programs: Programs, tmp_path: Path) -> None:
    source = write_model(tmp_path / "a-F16.gguf", SMALL)
    told: list[Progress] = []
    files = quantize(
        source,
        tmp_path / "out",
        ["Q6_K", "Q2_K"],
        program=programs.ladder,
        threads=2,
        progress=told.append,
    )
    assert [file.variant for file in files] == ["Q6_K", "Q2_K"]
    assert [file.path.name for file in files] == ["a-Q6_K.gguf", "a-Q2_K.gguf"]
    q6, q2 = files
    assert q6.size == q6.path.stat().st_size
    assert 2.5 < q2.bits_per_weight < 4
    assert 6.5 < q6.bits_per_weight < 7
    assert {tensor.type for tensor in q6.tensors} == {"q6_K", "f32"}
    assert q6.fallbacks == 0
    assert told[-1].done == told[-1].total > 0


def test_a_listener_that_fails_is_heard_of_when_the_files_are_there(
    programs: Programs, tmp_path: Path
) -> None:
    def fail(now: Progress) -> None:
        raise BlockingIOError(now.total)

    source = write_model(tmp_path / "a.gguf", SMALL)
    with pytest.raises(BlockingIOError):
        quantize(source, tmp_path / "out", ["Q4_0"], program=programs.ladder, progress=fail)
    assert (tmp_path / "out" / "a-Q4_0.gguf").exists()


def test_fallbacks_are_counted(programs: Programs, tmp_path: Path) -> None:
    shape = Shape(width=576, inner=768, heads=9, kv_heads=3, layers=1, vocabulary=64)
    source = write_model(tmp_path / "a.gguf", shape)
    (file,) = quantize(source, tmp_path / "out", ["Q4_K_M"], program=programs.ladder)
    assert file.fallbacks == 7  # every row of 576; ffn_down's rows of 768 fit


def test_options_reach_the_engine(programs: Programs, tmp_path: Path) -> None:
    source = write_model(tmp_path / "a.gguf", SMALL, tensors_per_part=6)
    options = LadderOptions(
        tensor_types=(("attn_v", "q8_0"),),
        output_tensor_type="q5_1",
        token_embedding_type="f16",
        override_kv=("general.name=str:other",),
        keep_split=True,
        source_digest="sha256:0",
        sync=False,
    )
    files = quantize(source, tmp_path / "o", ["Q4_0"], program=programs.ladder, options=options)
    assert [file.path.name for file in files] == [
        f"a-Q4_0-0000{i}-of-00004.gguf" for i in range(1, 5)
    ]
    types = {tensor.name: tensor.type for file in files for tensor in file.tensors}
    assert types["blk.1.attn_v.weight"] == "q8_0"
    assert types["output.weight"] == "q5_1"
    assert types["token_embd.weight"] == "f16"


@pytest.mark.parametrize(("variants", "words"), [
    (["Q4_KM"], "did you mean 'Q4_K_M'"),
    (["q4_k_m"], "did you mean 'Q4_K_M'"),
    (["Q4_0", "Q4_0"], "asked for twice"),
    ([], "no variant"),
])  # fmt: skip
def test_names_are_checked_first(
    programs: Programs, tmp_path: Path, variants: list[str], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        quantize(tmp_path / "none.gguf", tmp_path / "out", variants, program=programs.ladder)
    assert not (tmp_path / "out").exists()


def test_errors_say_who_must_act(programs: Programs, tmp_path: Path) -> None:
    source = write_model(tmp_path / "a.gguf", SMALL)
    out = tmp_path / "out"
    with pytest.raises(UserError, match="No such file"):
        quantize(tmp_path / "none.gguf", out, ["Q4_0"], program=programs.ladder)
    with pytest.raises(UserError, match="requires an imatrix") as refusal:
        quantize(source, out, ["IQ2_XXS"], program=programs.ladder)
    assert refusal.value.mend is not None
    assert "--imatrix" in refusal.value.mend
    with pytest.raises(UserError, match="raise --memory"):
        quantize(source, out, ["Q4_0"], program=programs.ladder, memory=4000)
    (tmp_path / "text.gguf").write_text("no model")
    with pytest.raises(SourceError, match="not a GGUF file"):
        quantize(tmp_path / "text.gguf", out, ["Q4_0"], program=programs.ladder)
    with pytest.raises(BuildError, match="could not be started"):
        quantize(source, out, ["Q4_0"], program=tmp_path / "no-program")


def test_output_may_not_be_the_input(programs: Programs, tmp_path: Path) -> None:
    source = write_model(tmp_path / "a-Q4_0.gguf", SMALL)
    (tmp_path / "a.gguf").symlink_to(source)
    before = source.read_bytes()
    with pytest.raises(UserError, match="input and output files are the same"):
        quantize(tmp_path / "a.gguf", tmp_path, ["Q4_0"], program=programs.ladder)
    assert source.read_bytes() == before


def test_command(programs: Programs, tmp_path: Path) -> None:
    source = write_model(tmp_path / "a.gguf", SMALL)
    words = [str(source), "-o", str(tmp_path / "out"), "-t", "Q4_0,Q6_K", "-t", "Q8_0"]
    words += ["--tensor-type", "attn_v=q8_0", "--program", str(programs.ladder)]
    first = CliRunner().invoke(quantize_command, words, catch_exceptions=False)
    assert first.exit_code == 0
    assert first.stdout.count("made") == 3
    again = CliRunner().invoke(quantize_command, [*words, "--json"], catch_exceptions=False)
    files = json.loads(again.stdout)["files"]
    assert [file["variant"] for file in files] == ["Q4_0", "Q6_K", "Q8_0"]
    assert all(file["reused"] for file in files)
    assert all(Path(file["path"]).stat().st_size == file["size"] for file in files)


def test_command_refuses_a_malformed_override(tmp_path: Path) -> None:
    words = ["a.gguf", "-o", str(tmp_path), "-t", "Q4_0", "--tensor-type", "attn_v"]
    with pytest.raises(UserError, match="PATTERN=TYPE"):
        CliRunner().invoke(quantize_command, words, catch_exceptions=False)
