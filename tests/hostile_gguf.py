"""Hostile GGUF files, each with the message that refuses it."""

from __future__ import annotations

import struct
from dataclasses import replace

from gguf_builder import ARRAY, TEXT, File, Row, array, sample, scalar, string, text

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

HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "too short for a header"),
    "magic alone": (b"GGUF", "too short for a header"),
    "a header less one byte": (File().build()[:23], "too short for a header"),
    "another magic": (File(magic=b"GGML").build(), "it starts with b'GGML' instead of b'GGUF'"),
    "big-endian": (File(order=">").build(), "it is big-endian"),
    "version 0": (File(version=0).build(), "version 0 is neither 2 nor 3"),
    "version 1": (File(version=1).build(), "version 1 is neither 2 nor 3"),
    "version 4": (File(version=4).build(), "version 4 is neither 2 nor 3"),
    "version 2**32-1": (
        File(version=(1 << 32) - 1).build(),
        "version 4294967295 is neither 2 nor 3",
    ),
    "2**64-1 tensors": (
        File(tensor_count=HUGE).build(),
        "the file ends inside its 18446744073709551615 tensors at byte 24",
    ),
    "2**63 values": (
        File(value_count=1 << 63).build(),
        "the file ends inside its 9223372036854775808 keys at byte 24",
    ),
    "a million tensors": (
        File(tensor_count=10**6).build() + bytes(1000),
        "the file ends inside its 1000000 tensors at byte 24",
    ),
    "a million values": (
        File(value_count=10**6).build() + bytes(1000),
        "the file ends inside its 1000000 keys at byte 24",
    ),
    "one tensor too many": (
        replace(sample(), tensor_count=4).build(),
        "the file ends inside a string of 361417177238077440 bytes at byte 742",
    ),
    "one tensor too few": (
        replace(sample(), tensor_count=2).build(),
        "the tensors end at byte 1056 and the file at byte 1108: bytes are left over",
    ),
    "one value too many": (
        replace(sample(), value_count=17).build(),
        "the file ends inside a string of 562949953421312 bytes at byte 609",
    ),
    "one value too few": (
        replace(sample(), value_count=15).build(),
        "tensor 'test.flags' has 9 dimensions",
    ),
    "a key of 2**64-1 bytes": (
        File().header()[:16] + struct.pack("<QQ", 1, HUGE) + bytes(50),
        "the file ends inside a string of 18446744073709551615 bytes at byte 32",
    ),
    "a key longer than the file": (
        File().header()[:16] + struct.pack("<QQ", 1, 900) + bytes(50),
        "the file ends inside a string of 900 bytes at byte 32",
    ),
    "an empty key": (one(scalar(4, 1), ""), "key b'' is outside the grammar"),
    "a key of 257 bytes": (
        one(scalar(4, 1), "k" * 257),
        "kkk' is outside the grammar",
    ),
    "a key with a space": (one(scalar(4, 1), "a b"), "key b'a b' is outside the grammar"),
    "a key with NUL": (one(scalar(4, 1), b"a\0b"), "key b'a\\x00b' is outside the grammar"),
    "a key that is no UTF-8": (one(scalar(4, 1), b"\xff"), "key b'\\xff' is outside the grammar"),
    "a key with an escape": (
        one(scalar(4, 1), "\x1b[31m"),
        "key b'\\x1b[31m' is outside the grammar",
    ),
    "a key twice": (
        File([("k", scalar(4, 1)), ("k", scalar(4, 2))]).build(),
        "key 'k' stands twice",
    ),
    "a value of type 13": (one(struct.pack("<II", 13, 0)), "key 'k' has the unknown type 13"),
    "a value of type 2**32-1": (
        one(struct.pack("<II", (1 << 32) - 1, 0)),
        "key 'k' has the unknown type 4294967295",
    ),
    "a text longer than the file": (
        one(struct.pack("<IQ", TEXT, 1 << 40)),
        "the file ends inside a string of 1099511627776 bytes at byte 45",
    ),
    "a text that is no UTF-8": (one(string(b"\xff\xfe")), "key 'k' holds a text that is no UTF-8"),
    "a truth of 2": (one(scalar(7, 2)), "key 'k' holds a truth value that is neither 0 nor 1"),
    "a truth of 255 in an array": (
        one(array(7, b"\1\xff", 2)),
        "key 'k' holds a truth value that is neither 0 nor 1",
    ),
    "an array of 2**64-1 bytes": (
        one(array(0, b"", HUGE)),
        "the file ends inside an array of 18446744073709551615 numbers at byte 49",
    ),
    "an array of 2**61 doubles": (
        one(array(12, b"", 1 << 61)),
        "the file ends inside an array of 2305843009213693952 numbers at byte 49",
    ),
    "an array of 2**60 texts": (
        one(array(TEXT, b"", 1 << 60)),
        "the file ends inside an array of 1152921504606846976 texts at byte 49",
    ),
    "an array of texts, one too long": (
        one(array(TEXT, text("a") + struct.pack("<Q", HUGE), 2)),
        "the file ends inside an array of 2 texts at byte 49",
    ),
    "an array in an array": (one(NESTED), "key 'k' is an array of the type 9, which is refused"),
    "an array of type 99": (
        one(array(99, bytes(16), 1)),
        "key 'k' is an array of the type 99, which is refused",
    ),
    "an array that ends early": (
        File([("k", array(4, bytes(39), 10))]).header(),
        "the file ends inside an array of 10 numbers at byte 49",
    ),
    "alignment 0": (aligned(scalar(4, 0)), "alignment 0 is no power of two from 8 to 65536"),
    "alignment 1": (aligned(scalar(4, 1)), "alignment 1 is no power of two from 8 to 65536"),
    "alignment 33": (aligned(scalar(4, 33)), "alignment 33 is no power of two from 8 to 65536"),
    "alignment 2**31": (
        aligned(scalar(4, 1 << 31)),
        "alignment 2147483648 is no power of two from 8 to 65536",
    ),
    "alignment -32": (
        aligned(scalar(5, -32)),
        "key 'general.alignment' has the type 5 instead of 4",
    ),
    "alignment 32.0": (
        aligned(scalar(6, 32.0)),
        "key 'general.alignment' has the type 6 instead of 4",
    ),
    "alignment as text": (
        aligned(string("32")),
        "key 'general.alignment' has the type 8 instead of 4",
    ),
    "alignment as truth": (
        aligned(scalar(7, 1)),
        "key 'general.alignment' has the type 7 instead of 4",
    ),
    "alignment as array": (
        aligned(array(4, struct.pack("<I", 32), 1)),
        "key 'general.alignment' has the type 9 instead of 4",
    ),
    "an empty tensor name": (tensors(f32("", 0)), "tensor name b'' is outside the grammar"),
    "a tensor name of 64 bytes": (
        tensors(f32("a" * 64, 0)),
        "aaaa' is outside the grammar",
    ),
    "a tensor name with a slash": (
        tensors(f32("a/b", 0)),
        "tensor name b'a/b' is outside the grammar",
    ),
    "a tensor name with dots first": (
        tensors(f32("../a", 0)),
        "tensor name b'../a' is outside the grammar",
    ),
    "a tensor name with a newline": (
        tensors(f32("a\n", 0)),
        "tensor name b'a\\n' is outside the grammar",
    ),
    "a tensor twice": (tensors(f32("a", 0), f32("a", 32)), "tensor 'a' stands twice"),
    "a scalar that takes 8 bytes": (
        tensors(Row("a", (), 0, 0, 40)),
        "bytes are left over",
    ),
    "a scalar in blocks": (
        tensors(Row("a", (), 8, 0, 34)),
        "tensor 'a': rows of 1 are no whole Q8_0 blocks",
    ),
    "5 dimensions": (tensors(Row("a", (1, 1, 1, 1, 1), 0, 0, 4)), "tensor 'a' has 5 dimensions"),
    "a dimension of 0": (
        tensors(Row("a", (8, 0), 0, 0, 0)),
        "tensor 'a' has the impossible shape (8, 0)",
    ),
    "a dimension of 2**64-1": (
        tensors(Row("a", (HUGE,), 0, 0, 32)),
        "tensor 'a' has the impossible shape (18446744073709551615,)",
    ),
    "dimensions whose product is 0 in 64 bits": (
        tensors(Row("a", (1 << 32, 1 << 32), 0, 0, 32)),
        "tensor 'a' has the impossible shape (4294967296, 4294967296)",
    ),
    "an unknown tensor type": (
        tensors(Row("a", (32,), 4, 0, 32)),
        "tensor 'a' has the type Q4_2, which ggml gave up",
    ),
    "a removed tensor type": (
        tensors(Row("a", (32,), 31, 0, 18)),
        "tensor 'a' has the type Q4_0_4_4, which ggml gave up",
    ),
    "a tensor type that is none yet": (
        tensors(Row("a", (32,), 99, 0, 32)),
        "tensor 'a' has the unknown type 99",
    ),
    "tensor type 2**32-1": (
        tensors(Row("a", (32,), (1 << 32) - 1, 0, 32)),
        "tensor 'a' has the unknown type 4294967295",
    ),
    "a row of half a block": (
        tensors(Row("a", (48,), 8, 0, 51)),
        "tensor 'a': rows of 48 are no whole Q8_0 blocks",
    ),
    "an offset that is not aligned": (
        tensors(f32("a", 0), f32("b", 36)),
        "tensor 'b' starts at 36 of the data, not at 32",
    ),
    "a first tensor not at 0": (
        tensors(f32("a", 32)),
        "tensor 'a' starts at 32 of the data, not at 0",
    ),
    "an offset of 2**64-1": (
        File(rows=[f32("a", 0), Row("b", (8,), 0, HUGE, 32)], data=bytes(64)).build(),
        "tensor 'b' starts at 18446744073709551615 of the data, not at 32",
    ),
    "tensors that overlap": (
        tensors(f32("a", 0, 16), f32("b", 32)),
        "tensor 'b' starts at 32 of the data, not at 64",
    ),
    "tensors at one place": (
        tensors(f32("a", 0), f32("b", 0)),
        "tensor 'b' starts at 0 of the data, not at 32",
    ),
    "a gap between tensors": (
        tensors(f32("a", 0), f32("b", 64)),
        "tensor 'b' starts at 64 of the data, not at 32",
    ),
    "data that is cut off": (
        GOOD[:-1],
        "the tensors end at byte 1108 and the file at byte 1107: it is truncated",
    ),
    "no data at all": (
        GOOD[:HEAD],
        "the tensors end at byte 1108 and the file at byte 734: it is truncated",
    ),
    "a header that is cut off": (GOOD[: HEAD - 1], "the file ends inside a field at byte 726"),
    "a byte to spare": (
        GOOD + bytes(13),
        "the tensors end at byte 1108 and the file at byte 1121: bytes are left over",
    ),
    "a whole second file": (
        GOOD + GOOD,
        "the tensors end at byte 1108 and the file at byte 2216: bytes are left over",
    ),
    "bytes after a file without tensors": (
        File().build() + bytes(40),
        "the header ends at byte 24 and the file at byte 72",
    ),
    "a zip archive": (
        b"PK\x03\x04" + bytes(100),
        "it starts with b'PK\\x03\\x04' instead of b'GGUF'",
    ),
    "a pickle": (
        b"\x80\x04\x95" + bytes(100),
        "it starts with b'\\x80\\x04\\x95\\x00' instead of b'GGUF'",
    ),
    "a git-lfs pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        "it is a Git LFS pointer, and the file that it stands for was not fetched",
    ),
    "zeros": (bytes(4096), "it starts with b'\\x00\\x00\\x00\\x00' instead of b'GGUF'"),
    "ones": (b"\xff" * 4096, "it starts with b'\\xff\\xff\\xff\\xff' instead of b'GGUF'"),
    "a text with a zero byte": (one(string("phi3\0evil")), "key 'k' holds a text with a zero byte"),
    "alignment in 64 bits": (
        aligned(scalar(10, 32)),
        "key 'general.alignment' has the type 10 instead of 4",
    ),
    "tensors in another order": (
        tensors(f32("b", 32), f32("a", 0)),
        "tensor 'b' starts at 32 of the data, not at 0",
    ),
    "65537 keys": (
        File(value_count=65537).header() + bytes(13 * 65537),
        "it has 65537 keys, more than 65536",
    ),
    "65537 tensors": (
        File(tensor_count=65537).header() + bytes(33 * 65537),
        "it has 65537 tensors, more than 65536",
    ),
    "the values of a big-endian file": (
        b"GGUF" + struct.pack("<I", 3) + struct.pack(">QQ", 0, 1) + bytes(40),
        "the file ends inside its 72057594037927936 keys at byte 24",
    ),
}
