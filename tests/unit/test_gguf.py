"""The strict GGUF reader: what is well-formed passes, all else is refused cheaply."""

import math
import os
import struct
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from gguf_builder import TEXT, File, Row, array, sample, scalar
from hostile_gguf import GOOD, HEAD, HOSTILE, f32, one, tensors
from quantmint.errors import IntegrityError, UserError
from quantmint.registry import gguf
from quantmint.registry.gguf import GgufError


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_cheaply(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.gguf"
    data, message = HOSTILE[name]
    path.write_bytes(data)
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(GgufError) as caught:
            gguf.read(path)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < 0.5
    assert isinstance(caught.value, IntegrityError)
    assert caught.value.what.startswith("x.gguf is no well-formed GGUF file: ")
    assert caught.value.what.endswith(message)
    assert "quantmint inspect FILE" in (caught.value.mend or "")
    assert caught.value.what.isprintable()
    assert len(str(caught.value)) < 400


def test_a_scalar_is_a_tensor_of_one_weight(tmp_path: Path) -> None:
    """Converters write a checkpoint's scalars as they are: no dimensions."""
    path = tmp_path / "x.gguf"
    path.write_bytes(tensors(Row("scale", (), 0, 0, 4)))
    (tensor,) = gguf.read(path).tensors
    assert (tensor.shape, tensor.weights, tensor.size) == ((1,), 1, 4)


def test_where_files_can_not_be_mapped_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(GOOD)
    mapped = gguf.read(path)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(19, "No such device")

    monkeypatch.setattr("mmap.mmap", refuse)
    assert gguf.read(path).tensors == mapped.tensors


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(GOOD)
    path.chmod(0)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    pid = os.fork()
    if pid == 0:
        if os.getuid() == 0:  # root may read everything
            os.setuid(65534)
        try:
            gguf.read(path)
        except UserError as error:
            said = f"{path} can't be read: Permission denied"
            os._exit(0 if (error.what, error.mend) == (said, f"ls -l {path}") else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_there_are_enough_hostile_files() -> None:
    assert len(HOSTILE) >= 80
    assert len({data for data, _ in HOSTILE.values()}) == len(HOSTILE)


@pytest.mark.parametrize(
    ("header", "size", "message"),
    [
        (one(struct.pack("<IQ", TEXT, 300 << 20)), 301 << 20, "longer than 256 MiB"),
        (one(struct.pack("<IQ", TEXT, 17 << 20)), 18 << 20, "zero byte|more than 16777216"),
        (one(array(TEXT, b"", (1 << 23) + 1)), 65 << 20, "more than 8388608 texts"),
        (one(array(TEXT, b"", 1 << 40)), 65 << 20, "an array of 1099511627776 texts"),
        (one(array(12, b"", 1 << 25)), 300 << 20, "longer than 256 MiB"),
    ],
)
def test_large_lies_in_sparse_files_are_refused(
    tmp_path: Path, header: bytes, size: int, message: str
) -> None:
    path = tmp_path / "sparse.gguf"
    path.write_bytes(header.rstrip(b"\0"))
    with path.open("r+b") as file:
        file.truncate(size)
    with pytest.raises(GgufError, match=message):
        gguf.read(path)


def test_arrays_cost_what_they_weigh() -> None:
    """Three megabytes of small integers and short texts, and one megabyte of truth values."""
    values: list[tuple[bytes | str, bytes]] = [
        ("a", array(0, bytes(1 << 20), 1 << 20)),
        ("b", array(2, bytes(1 << 20), 1 << 19)),
        ("c", array(7, bytes(1 << 20), 1 << 20)),
        ("d", array(TEXT, bytes(1 << 20), 1 << 17)),
    ]
    data = File(values).build()
    tracemalloc.start()
    try:
        header = gguf.parse(data, len(data))
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1.1 * len(data)
    assert peak < 1.6 * len(data)
    assert [len(header.values[key]) for key in "abcd"] == [1 << 20, 1 << 19, 1 << 20, 1 << 17]


def test_arrays_are_read_only_sequences() -> None:
    header = gguf.parse(GOOD, len(GOOD))
    scores, tokens = (header.values[f"tokenizer.ggml.{key}"] for key in ("scores", "tokens"))
    with pytest.raises(TypeError):
        scores[0] = 1.0
    assert (tokens[0], tokens[-1], tokens[:2]) == ("a", "", ("a", "\udcff\udcfe"))
    assert tokens[1].encode("utf-8", "surrogateescape") == b"\xff\xfe"
    again = gguf.parse(GOOD, len(GOOD))
    assert (again, hash(tokens)) == (header, hash(again.values["tokenizer.ggml.tokens"]))
    with pytest.raises(IndexError):
        tokens[3]


def test_a_good_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "good.gguf"
    path.write_bytes(GOOD)
    header = gguf.read(path)
    assert header.architecture == "phi3"
    assert header.values["general.name"] == "naïve"
    assert header.values["test.kind_7"] is True
    assert header.values["test.flags"].tolist() == [False, True]
    assert tuple(header.values["tokenizer.ggml.tokens"]) == ("a", "\udcff\udcfe", "")
    assert list(header.values["tokenizer.ggml.scores"]) == [0.0, -1.0, 2.0]
    assert [t.name for t in header.tensors] == [
        "token_embd.weight", "blk.0.attn.weight", "output_norm.weight",
    ]  # fmt: skip
    first = header.tensors[0]
    assert (first.shape, first.size, first.type.name) == ((64, 2), 136, "Q8_0")
    assert first.offset == header.data_offset == -(-HEAD // 32) * 32
    assert (header.size, header.weights) == (len(GOOD), 128 + 96 + 5)
    assert header.type_table() == {"F16": (1, 192), "Q8_0": (1, 136), "F32": (1, 20)}
    assert header.is_quantized
    assert math.isclose(header.bits_per_weight, 8 * 348 / 229)


def padded(data: bytes, alignment: int = 32) -> bytes:
    return data + bytes(-len(data) % alignment)


@pytest.mark.parametrize(
    "data",
    [
        File().build(),
        File().header(),
        replace(sample(), version=2).build(),
        padded(GOOD),
        File([("general.alignment", scalar(4, 64))], [f32("a", 0)], alignment=64).build(),
        tensors(f32("b", 0), f32("a", 32)),
        tensors(Row("a", (1, 2, 3, 4), 0, 0, 96)),
        tensors(Row("a" * 63, (256,), 12, 0, 144)),
        one(array(TEXT, b"", 0)),
        one(scalar(6, math.nan)),
        one(scalar(4, 1), "k" * 256),
    ],
)
def test_good_files_pass(data: bytes) -> None:
    assert gguf.parse(data, len(data)).version in {2, 3}


def test_every_cut_is_refused() -> None:
    for end in range(len(GOOD)):
        with pytest.raises(GgufError):
            gguf.parse(GOOD[:end], end)
