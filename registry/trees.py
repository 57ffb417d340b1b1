"""Folders in the store: a list of files by digest, and a folder linked together from it."""

from __future__ import annotations

import contextlib
import errno
import json
import re
import secrets
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from quantmint import names
from quantmint.errors import IntegrityError, QuantmintError, SourceError
from quantmint.files import (
    canonical_json,
    clone_or_copy,
    fsync_file,
    fsync_folder,
    full_disk_explained,
    make_folders,
)
from quantmint.registry.store import Blob, Store, missing, share

_PART: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
MOST_FILES: Final = 4096


@dataclass(frozen=True, slots=True)
class TreeFile:
    """One file of a tree: its path with `/`, its bytes, and whether it can be executed."""

    path: str
    blob: Blob
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Tree:
    """A folder by content. `blob` is the object that lists its files."""

    blob: Blob
    files: tuple[TreeFile, ...]

    @property
    def sha256(self) -> str:
        """The identity of the folder: the digest of its list of files."""
        return self.blob.sha256

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.blob.size for file in self.files)


def check_path(path: str) -> str:
    """Return `path` if each part of it is a plain, visible name.

    Raises:
        SourceError: it could lead out of the folder, or holds unusual characters.
    """
    parts = PurePosixPath(path).parts
    plain = path == "/".join(parts) and all(_PART.fullmatch(part) for part in parts)
    if not plain or not parts or len(path) > 512:
        raise SourceError(f"file name {path[:80]!r} is refused: letters, digits and ._+- only")
    return path


def put_tree(store: Store, files: list[TreeFile]) -> Tree:
    """Record a folder made of objects that are in the store already."""
    ordered = tuple(sorted(files, key=lambda file: file.path))
    for file in ordered:
        check_path(file.path)
        if not store.has(file.blob):
            raise missing(file.blob)
    rows = [[f.path, f.blob.sha256, f.blob.size, f.executable] for f in ordered]
    return Tree(store.put_bytes(canonical_json({"tree": 1, "files": rows})), ordered)


def load_tree(store: Store, blob: Blob) -> Tree:
    """Read the list of a folder's files.

    Raises:
        IntegrityError: the object is missing, damaged or no such list.
    """
    try:
        data = store.read(blob)
    except IntegrityError as error:
        raise IntegrityError(f"object {blob.sha256} is no list of files: {error}") from error
    return parse_tree(blob, data)


def parse_tree(blob: Blob, data: bytes) -> Tree:
    """Return the folder that `data`, the bytes of `blob`, lists.

    Raises:
        IntegrityError: it is no such list.
    """
    try:
        value = json.loads(data)
        rows = value["files"]
        if value["tree"] != 1 or len(rows) > MOST_FILES:
            raise ValueError("version or length")
        files = tuple(_file(*row) for row in rows)
        if len({file.path for file in files}) != len(files):
            raise ValueError("a path stands twice")
    except (ValueError, LookupError, TypeError, RecursionError, QuantmintError) as error:
        raise IntegrityError(f"object {blob.sha256} is no list of files: {error}") from error
    return Tree(blob, files)


def _file(path: str, sha256: str, size: int, executable: bool) -> TreeFile:
    if type(size) is not int or size < 0 or type(executable) is not bool:
        raise ValueError(f"the row of {path!r}")
    return TreeFile(check_path(path), Blob(names.digest(sha256), size), executable)


def looks_like_tree(head: bytes) -> bool:
    """Return whether an object that begins so may list a folder: `put_tree` writes no other."""
    return head.startswith(b'{"files":[')


def tree_is_whole(store: Store, tree: Tree) -> bool:
    """Return whether every file of the tree is in the store."""
    return all(store.has(file.blob) for file in tree.files)


def checkout(store: Store, tree: Tree, name: str) -> Path:
    """Return a folder called `name` that holds the tree's files; it is made whole or not at all.

    Plain files are links to the store's objects; executables are clones, since a link would
    share its mode with the object.

    Raises:
        IntegrityError: a file of the tree is not in the store.
    """
    check_path(name)
    parent = store.trees / tree.sha256
    final = parent / name
    store.keep(tree.sha256)
    with full_disk_explained(final):
        if final.is_dir() and _is_complete(final, tree):
            return final
    with store.stage() as stage:
        staged = stage / name
        staged.mkdir()
        for file in tree.files:
            _place(store, file, staged / file.path)
        for folder in {(staged / file.path).parent for file in tree.files} | {staged}:
            fsync_folder(folder)
        make_folders(parent)
        _swap_in(staged, final, tree)
        fsync_folder(parent)
    return final


def _is_complete(folder: Path, tree: Tree) -> bool:
    for file in tree.files:
        path = folder / file.path
        if not path.is_file() or path.stat().st_size != file.blob.size:
            return False
    return True


def _place(store: Store, file: TreeFile, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if file.executable:
        store.using(file.blob, lambda source: clone_or_copy(source, target))
        target.chmod(0o555)
        fsync_file(target)
    else:
        store.using(file.blob, lambda source: share(source, target))


def _swap_in(staged: Path, final: Path, tree: Tree) -> None:
    """Rename into place; a folder that another process completed first is as good as ours."""
    while True:
        try:
            staged.rename(final)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
        else:
            return
        if _is_complete(final, tree):
            return  # it may be in use already: it must not vanish even for a moment
        aside = staged.parent / f"aside.{secrets.token_hex(4)}"
        with contextlib.suppress(FileNotFoundError):  # another process may mend it as well
            final.rename(aside)
