"""What can be published under which names."""

from __future__ import annotations

import pytest

from publishing import file_set
from quantmint.errors import IntegrityError, UserError
from quantmint.registry.publish import FileSet, FolderTarget, HubTarget, open_target
from quantmint.registry.publish.files import check_release
from quantmint.registry.store import Blob, Store


@pytest.mark.parametrize("name", ["", "a/b", "-v", "yanked/v1", "v" * 65, "v1\n", "v..1"])
def test_names_that_no_release_has(name: str) -> None:
    with pytest.raises(UserError, match="is no name of a release"):
        check_release(name)


@pytest.mark.parametrize(
    "path", ["../x", "/x", "a//b", ".git/config", "x\n", "quantmint.status.json", "a/../b", "é"]
)
def test_paths_that_no_file_has(store: Store, path: str) -> None:
    with pytest.raises(UserError):
        file_set(store, {path: b"x"})


def test_a_set_of_files(store: Store) -> None:
    with pytest.raises(UserError, match="differ in case alone"):
        file_set(store, {"readme.md": b"x", "README.md": b"y"})
    with pytest.raises(IntegrityError, match="not in the store"):
        FileSet.of(store, {"x.gguf": Blob("0" * 64, 5)})
    first = file_set(store, {"b": b"x", "a": b"y" * 100_000})
    assert first.digest == file_set(store, {"a": b"y" * 100_000, "b": b"x"}).digest
    assert first.digest != file_set(store, {"a": b"x", "b": b"y" * 100_000}).digest
    assert (first.size, [file.path for file in first.files]) == (100_001, ["a", "b"])


def test_targets_by_name() -> None:
    assert isinstance(open_target("file:registry"), FolderTarget)
    target = open_target("org/name", endpoint="http://127.0.0.1:1/", token="hf_x")
    assert isinstance(target, HubTarget)
    assert target.name == "http://127.0.0.1:1/org/name"
    for name in ("org", "a/b/c", "../x", "org/na me", "http://x/y"):
        with pytest.raises(UserError, match="is no repository"):
            open_target(name)
