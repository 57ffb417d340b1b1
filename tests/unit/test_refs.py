"""References: whole, replaced only as expected, and refused when they are not what they say."""

import contextlib
import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from quantmint.errors import IntegrityError, UserError
from quantmint.registry import refs
from quantmint.registry.refs import list_refs, put_ref, read_ref, remove_ref
from quantmint.registry.store import Blob, Store
from quantmint.registry.trees import TreeFile, put_tree


@pytest.fixture
def blob(store: Store) -> Blob:
    return store.put_bytes(b"weights")


def test_a_reference_is_read_as_it_was_put(store: Store, blob: Blob) -> None:
    made = put_ref(store, "phi-3-nano", "1", {"a.gguf": blob}, body={"gates": [1, "ok"]})
    assert made == read_ref(store, "phi-3-nano", "1")
    assert (made.objects, made.body) == ({"a.gguf": blob}, {"gates": [1, "ok"]})
    other = put_ref(store, "phi-2", "2026.1", {"a": blob})
    assert list(list_refs(store)) == [other, made]
    assert list(list_refs(store, "phi-2")) == [other]
    path = store.refs / "phi-3-nano" / "1.json"
    assert [p.name for p in path.parent.iterdir()] == ["1.json"]
    assert json.loads(path.read_bytes())["objects"] == {"a.gguf": [blob.sha256, 7]}


def test_a_reference_replaces_only_what_it_expects(store: Store, blob: Blob) -> None:
    first = put_ref(store, "m", "1", {"a": blob})
    assert put_ref(store, "m", "1", {"a": blob}) == first  # the same again, after a kill
    with pytest.raises(UserError, match="not as it was expected"):
        put_ref(store, "m", "1", {"a": blob}, body={"x": 1})
    second = put_ref(store, "m", "1", {}, body={"x": 2}, expected=first.revision)
    for expected in (first.revision, "0" * 64):
        with pytest.raises(UserError, match="not as it was expected"):
            put_ref(store, "m", "1", {}, body={"x": 3}, expected=expected)
        with pytest.raises(UserError, match="not as it was expected"):
            remove_ref(store, "m", "1", expected=expected)
    assert read_ref(store, "m", "1") == second
    assert put_ref(store, "m", "1", {}, expected=refs.ANY).revision != second.revision
    assert remove_ref(store, "m", "1")
    assert not remove_ref(store, "m", "1")
    with pytest.raises(UserError, match="no release 1 of m"):
        read_ref(store, "m", "1")


def test_of_many_writers_one_wins(store: Store, blob: Blob) -> None:
    def race(expected: str) -> list[str]:
        won: list[str] = []
        start = threading.Barrier(16)

        def put(n: int) -> None:
            start.wait()
            with contextlib.suppress(UserError):
                won.append(put_ref(store, "m", "1", {"a": blob}, body={"by": [n, expected]},
                                   expected=expected).revision)  # fmt: skip

        threads = [threading.Thread(target=put, args=(n,)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return won

    (first,) = race(refs.NONE_YET)
    (second,) = race(first)
    assert read_ref(store, "m", "1").revision == second


def test_nobody_comes_between_comparing_and_writing(
    store: Store, blob: Blob, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = put_ref(store, "m", "1", {"a": blob}).revision
    real = refs._revision
    won: list[int] = []

    def replace_it(n: int) -> None:
        with contextlib.suppress(UserError):
            put_ref(store, "m", "1", {"a": blob}, body={"n": n}, expected=first)
            won.append(n)

    rival = threading.Thread(target=replace_it, args=(2,))

    def compared_then_a_rival_comes(path: Path) -> str:
        found = real(path)
        if threading.current_thread() is not rival:
            rival.start()
            rival.join(0.3)  # it waits for the lock that we hold
        return found

    monkeypatch.setattr(refs, "_revision", compared_then_a_rival_comes)
    replace_it(1)
    rival.join()
    assert won == [1]
    assert read_ref(store, "m", "1").body == {"n": 1}


def test_what_is_not_there_can_not_be_kept(store: Store, blob: Blob) -> None:
    part = store.put_bytes(b"part")
    tree = put_tree(store, [TreeFile("part", part)])
    put_ref(store, "m", "1", {"tree": tree.blob})
    store.remove(part)
    for objects in ({"a": Blob("0" * 64, 3)}, {"a": replace(blob, size=8)}, {"t": tree.blob}):
        with pytest.raises(IntegrityError, match="not in the store"):
            put_ref(store, "m", "2", objects)
    assert [ref.release for ref in list_refs(store)] == ["1"]


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "A", "a..b", "x" * 97, "a\n", "a\0"])
def test_hostile_names_never_become_paths(store: Store, blob: Blob, name: str) -> None:
    for model, release in ((name, "1"), ("m", name)):
        with pytest.raises(UserError, match=r"is no (model|release) name"):
            put_ref(store, model, release, {"a": blob})
    assert list(store.refs.iterdir()) == []


def test_too_large_is_refused(store: Store, blob: Blob) -> None:
    with pytest.raises(UserError, match="too large"):
        put_ref(store, "m", "1", {"a": blob}, body={"x": "y" * refs.LONGEST})
    with pytest.raises(UserError, match="too large"):
        put_ref(store, "m", "1", {str(n): blob for n in range(refs.MOST_OBJECTS + 1)})


GOOD = {"format": 1, "model": "m", "release": "1", "objects": {"a": ["0" * 64, 7]}, "body": {}}


@pytest.mark.parametrize(
    "value",
    [
        [],
        None,
        {**GOOD, "format": 2},
        {**GOOD, "model": "other"},
        {**GOOD, "release": "2"},
        {**GOOD, "more": 1},
        {**GOOD, "objects": []},
        {**GOOD, "objects": {"a": ["0" * 64]}},
        {**GOOD, "objects": {"a": ["../x", 7]}},
        {**GOOD, "objects": {"a": [7, 7]}},
        {**GOOD, "objects": {"a": ["0" * 64, -1]}},
        {**GOOD, "objects": {"a": ["0" * 64, True]}},
        {**GOOD, "body": 5},
        {key: value for key, value in GOOD.items() if key != "body"},
        b"",
        b"[" * 100_000,
        b" " * (refs.LONGEST + 1),
    ],
)
def test_a_damaged_reference_is_refused(store: Store, value: object) -> None:
    path = store.refs / "m" / "1.json"
    path.parent.mkdir()
    path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    with pytest.raises(IntegrityError, match="is damaged"):
        read_ref(store, "m", "1")
    path.write_bytes(json.dumps(GOOD).encode())
    assert read_ref(store, "m", "1").objects == {"a": Blob("0" * 64, 7)}


def test_a_replaced_reference_is_never_half_there(store: Store, blob: Blob, tmp_path: Path) -> None:
    """A reader sees one revision or another at any time."""
    put_ref(store, "m", "1", {"a": blob}, body={"n": -1, "pad": "x" * 100_000})
    stop = threading.Event()
    seen: set[int] = set()

    def read() -> None:
        while not stop.is_set():
            seen.add(read_ref(store, "m", "1").body["n"])

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for n in range(40):
            put_ref(store, "m", "1", {"a": blob}, body={"n": n, "pad": "x" * 100_000},
                    expected=refs.ANY)  # fmt: skip
    finally:
        stop.set()
        reader.join()
    assert seen <= set(range(-1, 40))
    assert read_ref(store, "m", "1").body["n"] == 39
