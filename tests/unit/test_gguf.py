"""The strict GGUF reader: what is well-formed passes, all else is refused cheaply."""

import math
import random
import resource
import struct
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from gguf_builder import ARRAY, TEXT, File, Row, array, sample, scalar, string, text
from quantmint.errors import IntegrityError
from quantmint.registry import gguf
from quantmint.registry.gguf import GgufError

HUGE = (1 << 64) - 1


def f32(name: str, offset: int, count: int = 8) -> Row:
    return Row(name, (count,), 0, offset, 4 * count)


def one(value: bytes, key: bytes | str = "k") -> bytes:
    return File([(key, value)]).build()


def tensors(*rows: Row) -> bytes:
    return File(rows=list(rows)).build()


def aligned(value: bytes, alignment: int = 32) -> bytes:
    return File([("general.alignment", value)], [f32("a", 0)], alignment=alignment).build()


GOOD = sample().build()
HEAD = len(sample().header())
NESTED = array(ARRAY, struct.pack("<IQ", 4, 0), 1)

HOSTILE = {
    "empty": b"",
    "magic alone": b"GGUF",
    "a header less one byte": File().build()[:23],
    "another magic": File(magic=b"GGML").build(),
    "big-endian": File(order=">").build(),
    "version 0": File(version=0).build(),
    "version 1": File(version=1).build(),
    "version 4": File(version=4).build(),
    "version 2**32-1": File(version=(1 << 32) - 1).build(),
    "2**64-1 tensors": File(tensor_count=HUGE).build(),
    "2**63 values": File(value_count=1 << 63).build(),
    "a million tensors": File(tensor_count=10**6).build() + bytes(1000),
    "a million values": File(value_count=10**6).build() + bytes(1000),
    "one tensor too many": replace(sample(), tensor_count=4).build(),
    "one tensor too few": replace(sample(), tensor_count=2).build(),
    "one value too many": replace(sample(), value_count=17).build(),
    "one value too few": replace(sample(), value_count=15).build(),
    "a key of 2**64-1 bytes": File().header()[:16] + struct.pack("<QQ", 1, HUGE) + bytes(50),
    "a key longer than the file": File().header()[:16] + struct.pack("<QQ", 1, 900) + bytes(50),
    "an empty key": one(scalar(4, 1), ""),
    "a key of 257 bytes": one(scalar(4, 1), "k" * 257),
    "a key with a space": one(scalar(4, 1), "a b"),
    "a key with NUL": one(scalar(4, 1), b"a\0b"),
    "a key that is no UTF-8": one(scalar(4, 1), b"\xff"),
    "a key with an escape": one(scalar(4, 1), "\x1b[31m"),
    "a key twice": File([("k", scalar(4, 1)), ("k", scalar(4, 2))]).build(),
    "a value of type 13": one(struct.pack("<II", 13, 0)),
    "a value of type 2**32-1": one(struct.pack("<II", (1 << 32) - 1, 0)),
    "a text longer than the file": one(struct.pack("<IQ", TEXT, 1 << 40)),
    "a text that is no UTF-8": one(string(b"\xff\xfe")),
    "a truth of 2": one(scalar(7, 2)),
    "a truth of 255 in an array": one(array(7, b"\1\xff", 2)),
    "an array of 2**64-1 bytes": one(array(0, b"", HUGE)),
    "an array of 2**61 doubles": one(array(12, b"", 1 << 61)),
    "an array of 2**60 texts": one(array(TEXT, b"", 1 << 60)),
    "an array of texts, one too long": one(array(TEXT, text("a") + struct.pack("<Q", HUGE), 2)),
    "an array in an array": one(NESTED),
    "an array of type 99": one(array(99, bytes(16), 1)),
    "an array that ends early": File([("k", array(4, bytes(39), 10))]).header(),
    "alignment 0": aligned(scalar(4, 0)),
    "alignment 1": aligned(scalar(4, 1)),
    "alignment 33": aligned(scalar(4, 33)),
    "alignment 2**31": aligned(scalar(4, 1 << 31)),
    "alignment -32": aligned(scalar(5, -32)),
    "alignment 32.0": aligned(scalar(6, 32.0)),
    "alignment as text": aligned(string("32")),
    "alignment as truth": aligned(scalar(7, 1)),
    "alignment as array": aligned(array(4, struct.pack("<I", 32), 1)),
    "an empty tensor name": tensors(f32("", 0)),
    "a tensor name of 64 bytes": tensors(f32("a" * 64, 0)),
    "a tensor name with a slash": tensors(f32("a/b", 0)),
    "a tensor name with dots first": tensors(f32("../a", 0)),
    "a tensor name with a newline": tensors(f32("a\n", 0)),
    "a tensor twice": tensors(f32("a", 0), f32("a", 32)),
    "0 dimensions": tensors(Row("a", (), 0, 0, 4)),
    "5 dimensions": tensors(Row("a", (1, 1, 1, 1, 1), 0, 0, 4)),
    "a dimension of 0": tensors(Row("a", (8, 0), 0, 0, 0)),
    "a dimension of 2**64-1": tensors(Row("a", (HUGE,), 0, 0, 32)),
    "dimensions whose product is 0 in 64 bits": tensors(Row("a", (1 << 32, 1 << 32), 0, 0, 32)),
    "an unknown tensor type": tensors(Row("a", (32,), 4, 0, 32)),
    "tensor type 2**32-1": tensors(Row("a", (32,), (1 << 32) - 1, 0, 32)),
    "a row of half a block": tensors(Row("a", (48,), 8, 0, 51)),
    "an offset that is not aligned": tensors(f32("a", 0), f32("b", 36)),
    "a first tensor not at 0": tensors(f32("a", 32)),
    "an offset of 2**64-1": File(
        rows=[f32("a", 0), Row("b", (8,), 0, HUGE, 32)], data=bytes(64)
    ).build(),
    "tensors that overlap": tensors(f32("a", 0, 16), f32("b", 32)),
    "tensors at one place": tensors(f32("a", 0), f32("b", 0)),
    "a gap between tensors": tensors(f32("a", 0), f32("b", 64)),
    "data that is cut off": GOOD[:-1],
    "no data at all": GOOD[:HEAD],
    "a header that is cut off": GOOD[: HEAD - 1],
    "a byte to spare": GOOD + bytes(13),
    "a whole second file": GOOD + GOOD,
    "bytes after a file without tensors": File().build() + bytes(40),
    "a zip archive": b"PK\x03\x04" + bytes(100),
    "a pickle": b"\x80\x04\x95" + bytes(100),
    "a git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    "zeros": bytes(4096),
    "ones": b"\xff" * 4096,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_cheaply(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(HOSTILE[name])
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(GgufError, match=r"x\.gguf is no well-formed GGUF file") as caught:
            gguf.read(path)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < 0.5
    assert isinstance(caught.value, IntegrityError)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_there_are_enough_hostile_files() -> None:
    assert len(HOSTILE) >= 60
    assert len(set(HOSTILE.values())) == len(HOSTILE)


def test_a_good_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "good.gguf"
    path.write_bytes(GOOD)
    header = gguf.read(path)
    assert header.architecture == "phi3"
    assert header.values["general.name"] == "naïve"
    assert header.values["test.kind_7"] is True
    assert header.values["test.flags"] == (False, True)
    assert header.values["tokenizer.ggml.tokens"] == ("a", "\udcff\udcfe", "")
    assert header.values["tokenizer.ggml.scores"] == (0.0, -1.0, 2.0)
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
        tensors(f32("b", 32), f32("a", 0)),
        tensors(Row("a", (1, 2, 3, 4), 0, 0, 96)),
        tensors(Row("a" * 63, (256,), 12, 0, 144)),
        one(array(TEXT, b"", 0)),
        one(scalar(6, math.nan)),
        one(scalar(4, 1), "k" * 256),
    ],
)
def test_good_files_pass(data: bytes) -> None:
    assert gguf.parse(data, len(data)).version in {2, 3}


def test_mutants_raise_nothing_but_ggufs_own_error() -> None:
    """Twenty thousand mutants: flipped, overwritten, cut, doubled and spliced bytes."""
    rng = random.Random(20240)
    refused, interesting = 0, [0, 1, 0x7F, 0x80, 0xFF]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(20_000):
        data = bytearray(GOOD)
        for _ in range(rng.randint(1, 4)):
            at, how = rng.randrange(min(HEAD, len(data))), rng.randrange(5)
            if how == 0:
                data[at] ^= 1 << rng.randrange(8)
            elif how == 1:
                data[at : at + 8] = bytes([rng.choice(interesting)]) * 8
            elif how == 2:
                del data[at : at + rng.randint(1, 40)]
            elif how == 3:
                data[at:at] = data[at : at + rng.randint(1, 40)]
            else:
                data[at] = rng.choice(interesting)
        try:
            gguf.parse(bytes(data), len(data))
        except GgufError:
            refused += 1
    assert refused > 15_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 100_000  # kB


def test_every_cut_is_refused() -> None:
    for end in range(len(GOOD)):
        with pytest.raises(GgufError):
            gguf.parse(GOOD[:end], end)
