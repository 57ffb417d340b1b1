"""The action cache: equal work once, and never an answer whose bytes are gone."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from quantmint.registry.actions import Action, Outcome, lookup, perform
from quantmint.registry.store import Store
from quantmint.registry.trees import TreeFile, put_tree

ACTION = Action(
    name="quantize",
    inputs={"fp16": "a" * 64},
    tools={"llama.cpp": "b" * 64},
    arguments={"ftype": "Q4_K_M"},
)


class Maker:
    """Makes an outcome, and counts how often."""

    def __init__(self, make: Callable[[], Outcome]) -> None:
        self.count = 0
        self._make = make

    def __call__(self) -> Outcome:
        self.count += 1
        return self._make()


@pytest.fixture
def maker(store: Store) -> Maker:
    return Maker(
        lambda: Outcome(outputs={"gguf": store.put_bytes(b"variant")}, facts={"fallbacks": 2})
    )


def record(store: Store) -> Path:
    return store.actions / f"{ACTION.key}.json"


def test_the_second_time_is_a_hit(store: Store, maker: Maker) -> None:
    assert lookup(store, ACTION) is None
    first, second = perform(store, ACTION, maker), perform(store, ACTION, maker)
    assert maker.count == 1
    assert (first.cached, second.cached) == (False, True)
    assert (second.outputs, second.facts) == (first.outputs, first.facts)
    assert json.loads(record(store).read_bytes())["inputs"] == {"fp16": "a" * 64}


def test_a_failure_is_not_remembered(store: Store, maker: Maker) -> None:
    def fail() -> Outcome:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        perform(store, ACTION, fail)
    assert list(store.actions.iterdir()) == []
    assert not perform(store, ACTION, maker).cached


def test_bytes_that_are_gone_are_made_again(store: Store, maker: Maker) -> None:
    blob = perform(store, ACTION, maker).outputs["gguf"]
    store.remove(blob)
    assert lookup(store, ACTION) is None
    assert perform(store, ACTION, maker).outputs["gguf"] == blob
    assert maker.count == 2
    path = store.path(blob.sha256)
    path.chmod(0o644)
    path.write_bytes(b"short")
    assert not perform(store, ACTION, maker).cached
    assert store.read(blob) == b"variant"


def test_a_tree_counts_with_all_its_files(store: Store) -> None:
    def make() -> Outcome:
        tree = put_tree(store, [TreeFile("a", store.put_bytes(b"one"))])
        return Outcome(outputs={"source": tree.blob}, trees=("source",))

    perform(store, ACTION, make)
    assert perform(store, ACTION, make).cached
    store.remove(store.put_bytes(b"one"))
    assert not perform(store, ACTION, make).cached
    assert perform(store, ACTION, make).cached


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff\xfe\xfd",
        b"[" * 100_000,
        b'{"outputs": {}}',
        b'{"outputs": [], "trees": [], "facts": {}}',
        b'{"outputs": {"gguf": []}, "trees": [], "facts": {}}',
        b'{"outputs": {"gguf": ["../../etc/passwd", 5]}, "trees": [], "facts": {}}',
        b'{"outputs": {"gguf": [5, 5]}, "trees": [], "facts": {}}',
        b'{"outputs": {"gguf": ["%s", "x"]}, "trees": [], "facts": {}}' % (b"a" * 64),
        b'{"outputs": {}, "trees": [], "facts": 7}',
        b'{"outputs": {}, "trees": 7, "facts": {}}',
    ],
)
def test_a_corrupt_record_is_only_work_to_do_again(
    store: Store, maker: Maker, damage: bytes
) -> None:
    perform(store, ACTION, maker)
    record(store).write_bytes(damage)
    assert perform(store, ACTION, maker).facts["fallbacks"] == 2
    assert maker.count == 2
    assert perform(store, ACTION, maker).cached


def test_the_key_feels_every_part() -> None:
    others = [
        replace(ACTION, name="convert"),
        replace(ACTION, inputs={"fp16": "c" * 64}),
        replace(ACTION, inputs={"source": "a" * 64}),
        replace(ACTION, inputs={**ACTION.inputs, "imatrix": "a" * 64}),
        replace(ACTION, tools={"llama.cpp": "c" * 64}),
        replace(ACTION, arguments={"ftype": "Q4_K_S"}),
        replace(ACTION, arguments={}),
    ]
    keys = {action.key for action in (ACTION, *others)}
    assert len(keys) == 8
    assert all(len(key) == 64 for key in keys)
    twin = replace(ACTION, arguments=dict(reversed([("ftype", "Q4_K_M")])))
    assert twin.key == ACTION.key
