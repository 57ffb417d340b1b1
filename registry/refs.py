"""References: what a release is made of, kept from collection as long as the reference exists.

    refs/<model>/<release>.json   {"body": ..., "format": 1, "model": ..., "objects": ..., ...}

`objects` maps the names of a release's files to digest and size; an object that lists a folder
stands for all of its files as well. `body` is the caller's own: a manifest, a signature.

A new reference is made by a link, so of two writers exactly one succeeds wherever links work. One
that replaces another first compares its revision under a lock: where the file system has no
locks, two that replace the same revision at the same instant both succeed, and the last one stays.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from quantmint import names
from quantmint.errors import IntegrityError, QuantmintError, UserError
from quantmint.files import canonical_json, fsync_folder, full_disk_explained
from quantmint.registry.leases import exclusive
from quantmint.registry.store import Blob, Store
from quantmint.registry.trees import load_tree, looks_like_tree, tree_is_whole

FORMAT: Final = 1
LONGEST: Final = 4 << 20
MOST_OBJECTS: Final = 4096
# `expected` of `put_ref`: there must be none yet; whatever there is.
NONE_YET: Final = ""
ANY: Final = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ref:
    """A reference as it was read. `revision` is the digest of its bytes: the optimistic lock."""

    model: str
    release: str
    objects: Mapping[str, Blob]
    body: Mapping[str, Any]
    revision: str


def put_ref(
    store: Store,
    model: str,
    release: str,
    objects: Mapping[str, Blob],
    *,
    body: Mapping[str, Any] | None = None,
    expected: str = NONE_YET,
) -> Ref:
    """Make or replace a reference; from then on its objects stay.

    Args:
        store: an open store.
        model: the model's name.
        release: the release's name: `3`, `2026.1`.
        objects: the objects that it keeps, by the name of what each is for. All of them, and the
            files of the folders among them, must be in the store.
        body: whatever else belongs to it, as JSON.
        expected: the revision that it replaces; `NONE_YET` to make a new one, `ANY` for both.

    Raises:
        UserError: there is another revision than expected, or a name is refused.
        IntegrityError: an object is not in the store.
    """
    path = ref_path(store, model, release)
    with full_disk_explained(store.root):
        for blob in objects.values():
            _require_whole(store, blob)
    data = canonical_json(
        {
            "format": FORMAT,
            "model": model,
            "release": release,
            "objects": {name: [b.sha256, b.size] for name, b in objects.items()},
            "body": dict(body or {}),
        }
    )
    if len(data) > LONGEST or len(objects) > MOST_OBJECTS:
        raise UserError(f"the reference {model}/{release} is too large", mend="keep less in it")
    with full_disk_explained(path):
        if expected == NONE_YET:
            _make(store, path, data)
        else:
            with exclusive(store.refs / ".lock"):
                if expected != ANY and _revision(path) != expected:
                    raise _changed(path)
                store.write(path, data)
    return parse_ref(path, data)


def read_ref(store: Store, model: str, release: str) -> Ref:
    """Return a reference.

    Raises:
        UserError: there is none.
        IntegrityError: its file is damaged.
    """
    path = ref_path(store, model, release)
    try:
        with full_disk_explained(path):
            return parse_ref(path, read_bytes(path))
    except FileNotFoundError:
        raise UserError(
            f"there is no release {release} of {model} here", mend=f"ls {store.refs}"
        ) from None


def list_refs(store: Store, model: str | None = None) -> Iterator[Ref]:
    """Yield every reference, or those of one model, in order of their names.

    Raises:
        IntegrityError: a file is damaged.
    """
    with full_disk_explained(store.refs):
        files = ref_files(store)
    for path in files:
        if model in {None, path.parent.name}:
            with full_disk_explained(path), contextlib.suppress(FileNotFoundError):
                yield parse_ref(path, read_bytes(path))


def remove_ref(store: Store, model: str, release: str, *, expected: str = ANY) -> bool:
    """Remove a reference: its objects may be collected. Return whether there was one.

    Raises:
        UserError: there is another revision than expected.
    """
    path = ref_path(store, model, release)
    with full_disk_explained(path), exclusive(store.refs / ".lock"):
        if expected != ANY and _revision(path) != expected:
            raise _changed(path)
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        fsync_folder(path.parent)
    return True


def ref_path(store: Store, model: str, release: str) -> Path:
    """Return where a reference is.

    Raises:
        UserError: a name is refused.
    """
    names.check(names.MODEL, model, "model name")
    names.check(names.MODEL, release, "release name")
    return store.refs / model / f"{release}.json"


def ref_files(store: Store) -> list[Path]:
    """Return the files of all references, in order.

    Raises:
        OSError: a folder can't be listed; a glob would pass over it in silence.
    """
    folders = [folder for folder in sorted(store.refs.iterdir()) if folder.is_dir()]
    files = [path for folder in folders for path in sorted(folder.iterdir())]
    return [path for path in files if path.suffix == ".json" and not path.name.startswith(".")]


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a reference's file, or more than may be in one: never an endless file."""
    with path.open("rb") as file:
        return file.read(LONGEST + 1)


def parse_ref(path: Path, data: bytes) -> Ref:
    """Return what a reference's file says.

    Raises:
        IntegrityError: it is damaged, or belongs elsewhere.
    """
    try:
        if len(data) > LONGEST:
            raise ValueError("too long")
        value = json.loads(data)
        if set(value) != {"format", "model", "release", "objects", "body"}:
            raise ValueError("other fields than expected")
        if (value["format"], value["model"], f"{value['release']}.json") != (
            FORMAT, path.parent.name, path.name,
        ):  # fmt: skip
            raise ValueError("another version, model or release")
        objects = {name: _blob(*row) for name, row in value["objects"].items()}
        body = dict(value["body"])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, UserError) as error:
        raise IntegrityError(
            f"the reference {path} is damaged: {error}",
            mend=f"make the release again, or pull it; else give it up: rm {path}",
        ) from error
    return Ref(model=value["model"], release=value["release"], objects=objects, body=body,
               revision=hashlib.sha256(data).hexdigest())  # fmt: skip


def _blob(sha256: str, size: int) -> Blob:
    if type(sha256) is not str or type(size) is not int or size < 0:
        raise ValueError("an object's row")
    return Blob(names.digest(sha256), size)


def _require_whole(store: Store, blob: Blob) -> None:
    if not looks_like_tree(store.using(blob, _head)):
        return
    try:
        tree = load_tree(store, blob)
    except QuantmintError:
        return  # it only looks like one
    if not tree_is_whole(store, tree):
        raise IntegrityError(
            f"files of the folder {blob.sha256} are not in the store",
            mend="build the model again: quantmint build MODEL",
        )


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(32)


def _make(store: Store, path: Path, data: bytes) -> None:
    try:
        store.write(path, data, fresh=True)
    except FileExistsError:
        if read_bytes(path) != data:  # the same again is what a run that was killed had made
            raise _changed(path) from None


def _revision(path: Path) -> str:
    try:
        return hashlib.sha256(read_bytes(path)).hexdigest()
    except FileNotFoundError:
        return NONE_YET


def _changed(path: Path) -> UserError:
    return UserError(
        f"the reference {path.parent.name}/{path.stem} is not as it was expected to be: another "
        "process made, changed or removed it",
        mend="look at what is there now, then run again",
    )
