"""Pulling by tensor: what another file on this machine has already is not fetched."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from pathlib import Path

import pytest

from gguf_builder import File, Row, string
from quantmint.errors import IntegrityError
from quantmint.registry.store import Store
from quantmint.registry.tensors import make_table
from quantmint.registry.transfer import Item, Limits, LocalFile, fetch_all, local_file, plan
from quantmint.registry.transfer.ranges import total, union, without
from transfer.origin import FaultyOrigin, Reply

LIMITS = Limits(part=1 << 20, patience=5.0, tries=1, first=0.01, longest=0.05)
TENSORS, EACH = 8, 400_000


def gguf(template: str, seeds: list[int]) -> bytes:
    """Return a file with one F32 tensor per seed, its bytes made from that."""
    parts = [random.Random(seed).randbytes(EACH + 4 * (seed % 3)) for seed in seeds]
    rows, data = [], b""
    for index, part in enumerate(parts):
        data += b"\0" * (-len(data) % 32)
        rows.append(Row(f"blk.{index}.weight", (len(part) // 4,), 0, len(data), len(part)))
        data += part
    data += b"\0" * (-len(data) % 32)
    values = [
        ("general.architecture", string("phi3")),
        ("tokenizer.chat_template", string(template)),
    ]
    return File(values, rows, data=data).build()


def item_of(data: bytes, folder: Path, *local: LocalFile) -> Item:
    path = folder / "wanted.gguf"
    path.write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    table = make_table(path, "wanted.gguf", sha256)
    return Item(sha256=sha256, size=len(data), path="f", table=table, local=local)


def have(store: Store, data: bytes) -> LocalFile:
    blob = store.put_bytes(data)
    return local_file(store.path(blob.sha256), blob.sha256)


OLD = gguf("an old template", list(range(TENSORS)))


def test_another_template_fetches_the_header_alone(store: Store, tmp_path: Path) -> None:
    new = gguf("a new template, longer than the old one" * 50, list(range(TENSORS)))
    item = item_of(new, tmp_path, have(store, OLD))
    assert item.table is not None
    with FaultyOrigin({"f": new}) as origin:
        (took,) = fetch_all([item], [origin.url], store, limits=LIMITS)
        assert took.fetched == item.table.header_size == origin.sent
        assert took.reused == item.size - item.table.header_size
    assert store.path(item.sha256).read_bytes() == new
    assert list(store.staging.iterdir()) == []


def test_tensors_that_differ_are_fetched_from_wherever_they_moved(
    store: Store, tmp_path: Path
) -> None:
    new = gguf("x", [7, 6, 100, 4, 3, 101, 1, 0])
    first, second = have(store, gguf("y", [7, 6, 5])), have(store, gguf("z", [4, 3, 2, 1, 0]))
    item = item_of(new, tmp_path, first, second)
    with FaultyOrigin({"f": new}) as origin:
        (took,) = fetch_all([item], [origin.url], store, limits=LIMITS)
        assert 2 * EACH <= took.fetched <= 2 * EACH + 2000
        assert len(origin.log) == took.requests == 3
    assert store.path(item.sha256).read_bytes() == new


def test_a_server_without_ranges_gives_the_whole_file(store: Store, tmp_path: Path) -> None:
    new = gguf("new", list(range(TENSORS)))
    item = item_of(new, tmp_path, have(store, OLD))

    def no_ranges(*_: object) -> Reply:
        return Reply(200, {}, new)

    with FaultyOrigin({"f": new}, fault=no_ranges) as origin:
        (took,) = fetch_all([item], [origin.url], store, limits=LIMITS)
        assert (took.fetched, took.reused, took.restarts) == (item.size, 0, 1)
    assert store.path(item.sha256).read_bytes() == new


@pytest.mark.parametrize("damage", ["one tensor", "all", "gone", "shorter"])
def test_local_bytes_that_are_not_what_their_table_says_are_fetched(
    store: Store, tmp_path: Path, damage: str
) -> None:
    new = gguf("new", list(range(TENSORS)))
    path = tmp_path / "old.gguf"
    path.write_bytes(OLD)
    local = local_file(path, hashlib.sha256(OLD).hexdigest())
    row = local.table.tensors[3]
    if damage == "gone":
        path.unlink()
    elif damage == "shorter":
        path.write_bytes(OLD[: row.offset + 1000])
    else:
        size = 1 if damage == "one tensor" else len(OLD) - row.offset
        path.write_bytes(OLD[: row.offset] + b"\xff" * size + OLD[row.offset + size :])
    item = item_of(new, tmp_path, local)
    with FaultyOrigin({"f": new}) as origin:
        (took,) = fetch_all([item], [origin.url], store, limits=LIMITS)
        if damage == "one tensor":
            assert EACH < took.fetched < EACH + 10_000
            assert took.restarts == 1
    assert store.path(item.sha256).read_bytes() == new


def test_a_table_that_lies_of_its_own_file_does_no_harm(store: Store, tmp_path: Path) -> None:
    new = gguf("new", list(range(TENSORS)))
    item = item_of(new, tmp_path, have(store, OLD))
    assert item.table is not None
    rows = list(item.table.tensors)
    rows[2] = rows[2].model_copy(update={"sha256": rows[4].sha256, "size": rows[4].size})
    liar = replace(item, table=item.table.model_copy(update={"tensors": tuple(rows)}))
    with FaultyOrigin({"f": new}) as origin:
        fetch_all([liar], [origin.url], store, limits=LIMITS)
    assert store.path(item.sha256).read_bytes() == new


def test_a_table_of_another_file_is_refused(tmp_path: Path) -> None:
    item = item_of(OLD, tmp_path)
    with pytest.raises(IntegrityError, match="another file"):
        replace(item, size=item.size + 1)


def test_a_cut_delta_is_gone_on_with(store: Store, tmp_path: Path) -> None:
    new = gguf("new", [0, 1, 102, 3, 4, 103, 6, 7])
    item = item_of(new, tmp_path, have(store, OLD))
    calls: list[int] = []

    def fault(_o: object, _a: object, reply: Reply) -> Reply:
        calls.append(1)
        return reply if len(calls) < 3 else Reply(503, {}, b"")

    limits = replace(LIMITS, connections=1, tries=0)
    with FaultyOrigin({"f": new}, fault=fault) as origin:
        with pytest.raises(Exception, match="HTTP 503"):
            fetch_all([item], [origin.url], store, limits=limits)
        origin.fault = None
        (took,) = fetch_all([item], [origin.url], store, limits=LIMITS)
        assert took.fetched < EACH + 2000
    assert store.path(item.sha256).read_bytes() == new


def test_a_plan_covers_each_byte_once(tmp_path: Path) -> None:
    rng = random.Random(3)
    old = local_of(tmp_path / "old", gguf("old", [rng.randrange(12) for _ in range(9)]))
    for _ in range(20):
        data = gguf("t" * rng.randrange(300), [rng.randrange(12) for _ in range(9)])
        item = item_of(data, tmp_path)
        assert item.table is not None
        found = plan(item.table, [old], near=rng.choice([0, 100, 500_000]))
        copies = [(copy.start, copy.start + copy.size) for copy in found.copies]
        pieces = [*copies, *found.zeros, *found.fetch]
        assert union(pieces) == [(0, item.size)]
        assert total(pieces) == item.size
        assert found.saved == item.size - total(found.fetch)
        assert found.fetch[0][0] == 0


def local_of(path: Path, data: bytes) -> LocalFile:
    path.write_bytes(data)
    return local_file(path, hashlib.sha256(data).hexdigest())


def test_ranges_against_sets_of_bytes() -> None:
    rng = random.Random(5)
    for _ in range(300):
        one, two = (
            [(start, start + rng.randrange(6)) for start in rng.sample(range(30), rng.randrange(5))]
            for _ in range(2)
        )
        bytes_of = [{at for s, e in ranges for at in range(s, e)} for ranges in (one, two)]
        left = without(one, two)
        assert {at for s, e in left for at in range(s, e)} == bytes_of[0] - bytes_of[1]
        assert total(union(one)) == len(bytes_of[0])
        assert left == union(left)
