"""Why something is out of date, down to the argument, the file or the tensor that changed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from quantmint.assets.graph.upstream import Look, changed_files
from quantmint.errors import QuantmintError
from quantmint.registry import gguf
from quantmint.registry.store import Store
from quantmint.registry.trees import load_tree

MOST_NAMED: Final = 3
_DIGEST: Final = re.compile(r"[0-9a-f]{40,64}")
_LONGEST: Final = 48


def changed_arguments(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str:
    """Return which arguments changed, each from what to what."""
    if before is None:
        return "made by an older quantmint, which kept no record of its arguments"
    said = [
        f"{name}: {_short(before.get(name))} -> {_short(now.get(name))}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    return some(said, "; ") if said else "its code version changed"


def changed_upstream(before: Look, now: Look) -> str:
    """Return which files of an upstream changed, and the commits that they changed between."""
    files = some(changed_files(before.files, now.files), ", ") or "files beyond those listed"
    commits = f" (commit {before.commit[:12]} -> {now.commit[:12]})" if now.commit else ""
    return f"upstream changed: {files}{commits}"


def changed_input(store: Store, name: str, before: str | None, now: str | None) -> str:
    """Return what differs between two versions of an input, as far as both are in the store."""
    if before is None:
        return f"made before {name} was an input of it"
    if now is None:
        return f"{name} is gone"
    found = _difference(store, before, now)
    return f"{name} changed: {found or f'{_short(before)} -> {_short(now)}'}"


def _difference(store: Store, before: str, now: str) -> str:
    for compare in (_of_trees, _of_ggufs):
        try:
            return compare(store, before, now)
        except (QuantmintError, ValueError):
            continue  # no such thing, or no longer in the store: the digests must do
    return ""


def _of_trees(store: Store, before: str, now: str) -> str:
    old, new = (load_tree(store, store.find(digest)) for digest in (before, now))
    names = changed_files(
        {file.path: file.blob.sha256 for file in old.files},
        {file.path: file.blob.sha256 for file in new.files},
    )
    return some(names, ", ")


def _of_ggufs(store: Store, before: str, now: str) -> str:
    old, new = (gguf.read(store.path(store.find(digest).sha256)) for digest in (before, now))
    keys = sorted({*old.values, *new.values})
    said = [f"key {key}" for key in keys if old.values.get(key) != new.values.get(key)]
    was, are = ({t.name: (t.shape, t.type.name) for t in each.tensors} for each in (old, new))
    said += [f"tensor {n}" for n in sorted({*was, *are}) if was.get(n) != are.get(n)]
    return some(said, ", ") or "the tensors' bytes"


def some(said: Sequence[str], joint: str) -> str:
    """Return the first few of what is to be said, and how many more there are."""
    more = len(said) - MOST_NAMED
    return joint.join(said[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _short(value: Any) -> str:  # noqa: ANN401
    if value is None:
        return "none"
    text = str(value)
    if _DIGEST.fullmatch(text):
        return text[:12]
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
