"""Safetensors headers, and pickles in disguise."""

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from quantmint.assets.sources.safetensors import check, looks_like_pickle
from quantmint.errors import SourceError

GOOD = save({"a": np.zeros((2, 3), np.float32), "b": np.ones(5, np.float16)})


def built(header: Any, data: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def row(begin: object, end: object, shape: object = (1,), dtype: object = "F32") -> Any:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    return file.getvalue()


BAD = {
    "empty": b"",
    "seven bytes": bytes(7),
    "no header": bytes(8),
    "a header of 2**64-1 bytes": b"\xff" * 8 + b"{}",
    "a header longer than the file": struct.pack("<Q", 1000) + b"{}",
    "a header longer than is allowed": struct.pack("<Q", 100_000_001) + b"{}",
    "no JSON": built(b"{nonsense}"),
    "JSON that nests for ever": built(b"[" * 200_000),
    "a list": built([]),
    "not UTF-8": built(b'{"\xff": 1}'),
    "a tensor that is no object": built({"a": 5}),
    "no dtype": built({"a": {"shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
    "an unknown dtype": built({"a": row(0, 4, dtype="F12")}, bytes(4)),
    "a dtype that is a list": built({"a": row(0, 4, dtype=[])}, bytes(4)),
    "a shape that is no list": built({"a": row(0, 4, shape=3)}, bytes(4)),
    "a shape of texts": built({"a": row(0, 4, shape=["1"])}, bytes(4)),
    "a shape of fractions": built({"a": row(0, 4, shape=[1.5])}, bytes(4)),
    "a negative shape": built({"a": row(0, 4, shape=[-1, -1])}, bytes(4)),
    "an infinite shape": built(b'{"a":{"dtype":"F32","shape":[Infinity],"data_offsets":[0,4]}}'),
    "three offsets": built({"a": {**row(0, 4), "data_offsets": [0, 4, 8]}}, bytes(4)),
    "a negative offset": built({"a": row(-4, 0)}, bytes(4)),
    "an end before its beginning": built({"a": row(4, 0)}, bytes(4)),
    "a length that is not the shape's": built({"a": row(0, 4, shape=[2])}, bytes(4)),
    "an overlap": built({"a": row(0, 4), "b": row(2, 6)}, bytes(6)),
    "two at one place": built({"a": row(0, 4), "b": row(0, 4)}, bytes(4)),
    "a gap": built({"a": row(0, 4), "b": row(8, 12)}, bytes(12)),
    "a byte to spare": GOOD + b"x",
    "a byte too few": GOOD[:-1],
    "half a file": GOOD[: len(GOOD) // 2],
    "a header alone": GOOD[: 8 + struct.unpack("<Q", GOOD[:8])[0]],
    "a pickle": pickle.dumps({"w": [1, 2, 3]}),
    "an old pickle": pickle.dumps({"w": 1}, protocol=0),
    "a zip": zipped(),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_whole_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(BAD[name])
    with pytest.raises(SourceError, match=r"model\.safetensors is no whole safetensors file"):
        check(path)


def test_good_files_pass(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(GOOD)
    assert check(path) == {"a": ("F32", (2, 3)), "b": ("F16", (5,))}
    path.write_bytes(built({"__metadata__": {"format": "pt"}}))
    assert check(path) == {}
    path.write_bytes(built({"a": row(0, 4), "empty": row(0, 0, shape=[0])}, bytes(4)))
    assert set(check(path)) == {"a", "empty"}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_are_told_by_their_bytes(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps({"weight": b"x" * 100}, protocol=protocol))
    assert looks_like_pickle(path)
    path.write_bytes(zipped())
    assert looks_like_pickle(path)
    path.write_bytes(GOOD)
    assert not looks_like_pickle(path)


@pytest.mark.parametrize("length", [640, 896, 1152, 1408, 66176])
def test_a_header_whose_length_reads_like_a_pickle_is_none(tmp_path: Path, length: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(built(json.dumps({"a": row(0, 4)}).encode().ljust(length), bytes(4)))
    assert path.read_bytes()[:2] in {b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"}
    assert not looks_like_pickle(path)
    assert set(check(path)) == {"a"}


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_mutants_raise_nothing_but_our_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    raw = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "mutant.safetensors"
    path.write_bytes(bytes(raw))
    try:
        check(path)
    except SourceError as error:
        assert len(str(error)) < 1000
