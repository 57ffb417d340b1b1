"""Ten small well-formed GGUF files, and any number of broken ones made from them.

A mutant is named by two numbers, `mutant(seed, index)`: a failure is reproduced from its name.
"""

from __future__ import annotations

import copy
import random
import struct
from collections.abc import Callable
from functools import cache
from itertools import accumulate

from gguf_builder import ARRAY, FORMATS, TEXT, File, Row, array, sample, scalar, string, text
from quantmint.registry.gguf_types import TENSOR_TYPES

Values = list[tuple[bytes | str, bytes]]
EDGES = (30, 31, 32, 33, 40, 47, 48, 61, 62, 63, 64)
NUMBERS = (
    *range(14), 31, 32, 33, 63, 64, 65, 127, 128, 255, 256, 1 << 15, 1 << 16,
    *((1 << bits) + by for bits in EDGES for by in (-1, 0, 1)),
)  # fmt: skip


def mutant(seed: int, index: int) -> bytes:
    """Return the file of that name: one of the seeds after one to four changes."""
    rng = random.Random(f"{seed}:{index}")
    number = rng.randrange(len(seeds()))
    file = seeds()[number]
    if rng.random() < 0.35:
        file = copy.deepcopy(file)
        for _ in range(rng.choice((1, 1, 1, 2))):
            rng.choice(FIELDS)(rng, file)
        wild = any(row.offset + row.size > 1 << 16 for row in file.rows)
        data = file.header() + bytes(64) if wild else file.build()
        if rng.random() < 0.7:
            return data
    else:
        data = built(number)
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        rng.choice(BYTES)(rng, changed, min(len(changed), len(file.header()) + 40))
    return bytes(changed)


@cache
def seeds() -> tuple[File, ...]:
    """The well-formed files: one for each kind of file that a mint meets."""
    plain = [("general.architecture", string("phi3"))]
    old = sample()
    old.version = 2
    wide: Values = [*plain, ("general.alignment", scalar(4, 64))]
    return (
        sample(),
        old,
        model(),
        File(wide, tiled([("a.weight", (100,), 0), ("b.weight", (32, 5), 2)], 64), alignment=64),
        every_type(),
        importance_matrix(),
        part(0),
        part(1),
        File([*plain, ("tokenizer.ggml.tokens", array(TEXT, text("a") + text("b\0"), 2))]),
        File(),
    )


@cache
def built(number: int) -> bytes:
    """The bytes of one seed, padded after its last tensor as llama.cpp writes them."""
    file = seeds()[number]
    data = file.build()
    return data + bytes(-len(data) % file.alignment)


def tiled(rows: list[tuple[str, tuple[int, ...], int]], alignment: int = 32) -> list[Row]:
    """Place tensors (name, shape, type) one after the other."""
    sizes = []
    for _, shape, kind in rows:
        weights = 1
        for width in shape:
            weights *= width
        sizes.append(weights // TENSOR_TYPES[kind].block * TENSOR_TYPES[kind].size)
    starts = accumulate((-(-size // alignment) * alignment for size in sizes), initial=0)
    return [
        Row(name, shape, kind, at, size)
        for (name, shape, kind), at, size in zip(rows, starts, sizes, strict=False)
    ]


def model() -> File:
    """A language model with a tokenizer and a chat template, as a converter writes it."""
    words = [text(f"▁word{n}") for n in range(12)] + [text(b"<0xFF>"), text(b"\xff\xfe")]
    count = len(words)
    values: Values = [
        ("general.architecture", string("phi3")),
        ("general.name", string("Phi 3 Nano")),
        ("general.quantization_version", scalar(4, 2)),
        ("general.file_type", scalar(4, 15)),
        ("phi3.context_length", scalar(4, 4096)),
        ("phi3.attention.layer_norm_rms_epsilon", scalar(6, 1e-5)),
        ("phi3.attention.head_count_kv", array(5, struct.pack("<4i", 2, 2, 2, 2), 4)),
        ("phi3.attention.pattern", array(7, b"\0\1\1\1", 4)),
        ("tokenizer.ggml.tokens", array(TEXT, b"".join(words), count)),
        ("tokenizer.ggml.scores", array(6, bytes(4 * count), count)),
        ("tokenizer.ggml.token_type", array(5, struct.pack("<i", 1) * count, count)),
        ("tokenizer.ggml.precompiled_charsmap", array(0, bytes(40), 40)),
        ("tokenizer.chat_template", string("{% for m in messages %}{{ m.content }}{% endfor %}")),
    ]
    shapes = [("token_embd.weight", (64, 14), 8), ("blk.0.ffn_up.weight", (256, 3), 12)]
    return File(values, tiled([*shapes, ("output_norm.weight", (64,), 0)]))


def every_type() -> File:
    """One tensor of each type that ggml knows."""
    rows = [(f"t{t.number}.{t.name}", (t.block, 2), t.number) for t in TENSOR_TYPES.values()]
    return File([("general.architecture", string("test"))], tiled(rows))


def importance_matrix() -> File:
    """What llama-imatrix writes: sums and counts per tensor, no tokenizer."""
    names = ["blk.0.attn_q.weight", "blk.0.ffn_gate_exps.weight"]
    rows = [(f"{n}.in_sum2", (16, 4), 0) for n in names] + [
        (f"{n}.counts", (1, 4), 0) for n in names
    ]
    values: Values = [
        ("general.type", string("imatrix")),
        ("imatrix.datasets", array(TEXT, text("calibration.txt"), 1)),
        ("imatrix.chunk_count", scalar(4, 8)),
        ("imatrix.chunk_size", scalar(4, 512)),
    ]
    return File(values, tiled(rows))  # fmt: skip


def part(number: int) -> File:
    """One of the two parts of a split model."""
    values: Values = [
        ("split.no", scalar(2, number)),
        ("split.count", scalar(2, 2)),
        ("split.tensors.count", scalar(5, 4)),
    ]
    names = [f"blk.{number}.attn_{which}.weight" for which in "qk"]
    return File(values, tiled([(name, (32, 2), 1) for name in names]))


def _counts(rng: random.Random, file: File) -> None:
    if rng.random() < 0.5:
        file.tensor_count = rng.choice((len(file.rows) + rng.choice((-1, 1)), rng.choice(NUMBERS)))
        file.tensor_count %= 1 << 64
    else:
        file.value_count = rng.choice((len(file.values) + rng.choice((-1, 1)), rng.choice(NUMBERS)))
        file.value_count %= 1 << 64


def _start(rng: random.Random, file: File) -> None:
    file.version = rng.choice((0, 1, 2, 4, 1 << 24, 0x30000))
    if rng.random() < 0.2:
        file.magic = rng.choice((b"GGML", b"gguf", b"GGU\0"))
    if rng.random() < 0.2:
        file.order = ">"


def _alignment(rng: random.Random, file: File) -> None:
    kind = rng.choice((4, 4, 4, rng.choice(tuple(FORMATS))))
    number = rng.choice((0, 1, 8, 16, 32, 33, 64, 128, 1 << 16, 1 << 31))
    value = scalar(kind, number if kind in {4, 6, 10, 11, 12} else min(number, 100))
    if rng.random() < 0.1:
        value = string("32")
    file.values = [pair for pair in file.values if pair[0] != "general.alignment"]
    file.values.insert(rng.randint(0, len(file.values)), ("general.alignment", value))


def _key(rng: random.Random, file: File) -> None:
    if not file.values:
        return
    at = rng.randrange(len(file.values))
    key, value = file.values[at]
    names = (file.values[0][0], "", "k" * 257, b"a\0b", b"\xc3\x28", "a/b", "A b", "x.y", key * 2)
    file.values[at] = (rng.choice(names), value)


def _value(rng: random.Random, file: File) -> None:
    if not file.values:
        return
    at = rng.randrange(len(file.values))
    kind, count = rng.choice(NUMBERS) % (1 << 32), rng.choice(NUMBERS) % (1 << 64)
    made = (
        scalar(rng.choice(tuple(FORMATS)), rng.randrange(2)),
        string(rng.choice((b"", b"\xff", b"a\0b", "täxt".encode(), bytes(300)))),
        struct.pack("<I", kind) + bytes(8),
        array(kind % 14, bytes(rng.choice((0, 8, 64))), count),
        array(rng.choice(tuple(FORMATS)), bytes(16), 2),
        array(ARRAY, struct.pack("<IQ", 4, 0), 1),
        array(TEXT, text("a") + struct.pack("<Q", count), 2),
    )
    file.values[at] = (file.values[at][0], rng.choice(made))


def _tensor(rng: random.Random, file: File) -> None:
    if not file.rows:
        return
    row, other = rng.choice(file.rows), rng.choice(file.rows)
    how = rng.randrange(6)
    number = rng.choice(NUMBERS) % (1 << 64)
    if how == 0:
        row.kind = rng.choice((*range(44), number % (1 << 32)))
    elif how == 1:
        row.shape = tuple(rng.choice((number, 1, 32, 64)) for _ in range(rng.randrange(6)))
    elif how == 2:
        row.offset = rng.choice((number, other.offset, row.offset + 32, row.offset + 1))
    elif how == 3:
        row.name = rng.choice((other.name, "", "a" * 63, "a" * 64, b"a\0b", "../a", b"\xff", "x"))
    elif how == 4:
        file.rows.reverse()
    else:
        file.rows.remove(row)


def _data(rng: random.Random, file: File) -> None:
    file.data = bytes(rng.choice((0, 1, 31, 32, 1000, 4096)))


def _flip(rng: random.Random, data: bytearray, end: int) -> None:
    if end:
        data[rng.randrange(end)] ^= 1 << rng.randrange(8)


def _number(rng: random.Random, data: bytearray, end: int) -> None:
    width = rng.choice((1, 4, 8))
    at = rng.randrange(max(1, end - width))
    data[at : at + width] = (rng.choice(NUMBERS) % (1 << 8 * width)).to_bytes(width, "little")


def _letter(rng: random.Random, data: bytearray, end: int) -> None:
    """Change one letter for another: most of these stay well-formed."""
    letters = [at for at in rng.sample(range(end), min(end, 8)) if 97 <= data[at] <= 122]
    for at in letters[:1]:
        data[at] = rng.randrange(97, 123)


def _drop(rng: random.Random, data: bytearray, end: int) -> None:
    at = rng.randrange(max(1, end))
    del data[at : at + rng.choice((1, 4, 8, 40))]


def _repeat(rng: random.Random, data: bytearray, end: int) -> None:
    at = rng.randrange(max(1, end))
    data[at:at] = data[at : at + rng.choice((1, 4, 8, 40))]


def _cut(rng: random.Random, data: bytearray, end: int) -> None:
    del data[rng.choice((rng.randrange(max(1, end)), max(0, len(data) - rng.randint(1, 64)))) :]


def _grow(rng: random.Random, data: bytearray, end: int) -> None:
    data += bytes(rng.choice((1, 31, 32, 33, 64)))


def _weights(rng: random.Random, data: bytearray, end: int) -> None:
    """Change the data section, which neither reader looks into."""
    if len(data) > end:
        data[rng.randrange(end, len(data))] = rng.randrange(256)


FIELDS: tuple[Callable[[random.Random, File], None], ...] = (
    _counts, _start, _alignment, _key, _value, _value, _tensor, _tensor, _data,
)  # fmt: skip
BYTES: tuple[Callable[[random.Random, bytearray, int], None], ...] = (
    _flip, _flip, _number, _number, _letter, _letter, _drop, _repeat, _cut, _grow, _weights,
)  # fmt: skip
