"""Folders in the store: hostile paths, checkouts that are whole, damage that is mended."""

import os
import stat
from pathlib import Path

import pytest

from quantmint.errors import IntegrityError, SourceError
from quantmint.files import canonical_json
from quantmint.registry.store import Blob, Store
from quantmint.registry.trees import (
    Tree,
    TreeFile,
    check_path,
    checkout,
    load_tree,
    put_tree,
    tree_is_whole,
)

HOSTILE = [
    "", "/", "/etc/passwd", "../x", "a/../b", "a/..", "./a", "a/./b", "a//b", "a/", ".hidden",
    "a/.hidden", "-x", "a\\b", "a b", "a\nb", "a\0b", "ä", "~x", "a:b", "a/b" * 200, "*", "$HOME",
]  # fmt: skip


@pytest.fixture
def tree(store: Store) -> Tree:
    return put_tree(
        store,
        [
            TreeFile("sub/tool", store.put_bytes(b"#!/bin/sh\necho hi\n"), executable=True),
            TreeFile("config.json", store.put_bytes(b"{}")),
        ],
    )


@pytest.mark.parametrize("path", HOSTILE)
def test_hostile_paths_are_refused(store: Store, path: str) -> None:
    with pytest.raises(SourceError):
        check_path(path)
    with pytest.raises(SourceError):
        put_tree(store, [TreeFile(path, store.put_bytes(b"x"))])


def test_a_tree_is_its_sorted_list(store: Store, tree: Tree) -> None:
    assert load_tree(store, tree.blob) == tree
    assert [file.path for file in tree.files] == ["config.json", "sub/tool"]
    again = put_tree(store, list(reversed(tree.files)))
    assert again.sha256 == tree.sha256
    assert tree.size == 20


def test_checkout_is_whole_with_modes(store: Store, tree: Tree) -> None:
    folder = checkout(store, tree, "kernel")
    assert (folder / "config.json").read_bytes() == b"{}"
    tool = folder / "sub" / "tool"
    assert os.access(tool, os.X_OK)
    assert stat.S_IMODE(store.path(tree.files[1].blob.sha256).stat().st_mode) == 0o444
    before = tool.stat().st_ino
    assert checkout(store, tree, "kernel") == folder
    assert tool.stat().st_ino == before
    assert [p.name for p in store.staging.iterdir()] == []


@pytest.mark.parametrize("damage", ["missing", "short", "empty folder"])
def test_a_damaged_checkout_is_made_again(store: Store, tree: Tree, damage: str) -> None:
    folder = checkout(store, tree, "kernel")
    (folder / "config.json").unlink()
    if damage == "short":
        (folder / "config.json").write_bytes(b"{")
    if damage == "empty folder":
        (folder / "sub" / "tool").unlink()
        (folder / "sub").rmdir()
    checkout(store, tree, "kernel")
    assert (folder / "config.json").read_bytes() == b"{}"
    assert (folder / "sub" / "tool").stat().st_mode & 0o111
    assert [p.name for p in folder.parent.iterdir()] == ["kernel"]
    assert list(store.verify()) == []


def test_a_missing_object_makes_no_folder(store: Store, tree: Tree) -> None:
    store.remove(tree.files[1].blob)
    assert not tree_is_whole(store, tree)
    with pytest.raises(IntegrityError, match="not in the store"):
        checkout(store, tree, "kernel")
    assert not (store.trees / tree.sha256 / "kernel").exists()
    with pytest.raises(IntegrityError):
        put_tree(store, list(tree.files))


SHA = "0" * 64


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        5,
        {"tree": 2, "files": []},
        {"tree": 1, "files": 3},
        {"tree": 1, "files": [["a", SHA, 1]]},
        {"tree": 1, "files": [["a", SHA, 1, False, 0]]},
        {"tree": 1, "files": [["../a", SHA, 1, False]]},
        {"tree": 1, "files": [["a", "../x", 1, False]]},
        {"tree": 1, "files": [["a", 7, 1, False]]},
        {"tree": 1, "files": [["a", SHA, -1, False]]},
        {"tree": 1, "files": [["a", SHA, "1", False]]},
        {"tree": 1, "files": [["a", SHA, 1, "yes"]]},
        {"tree": 1, "files": [["a", SHA, 1, False], ["a", SHA, 2, False]]},
        {"tree": 1, "files": [["a", SHA, 1, False]] * 5000},
        b"no json",
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_an_object_that_is_no_list_is_refused(store: Store, value: object) -> None:
    blob = store.put_bytes(value if isinstance(value, bytes) else canonical_json(value))
    with pytest.raises(IntegrityError, match="no list of files"):
        load_tree(store, blob)


def test_a_list_that_is_not_there(store: Store, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="not in the store"):
        load_tree(store, Blob("2" * 64, 5))
    assert list(tmp_path.rglob("*.json")) == []
