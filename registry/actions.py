"""The action cache: what was made from what, so that equal work is never done twice.

key = digest of (action, input digests, tool identity, arguments that change the output);
value = output digests and the facts that were learned while making them.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantmint import names
from quantmint.errors import IntegrityError, UserError
from quantmint.files import canonical_json, digest_of, full_disk_explained
from quantmint.registry.store import Blob, Store
from quantmint.registry.trees import load_tree, tree_is_whole

FORMAT = 1
_DAY = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One deterministic step.

    `inputs` are digests by role, `tools` the identities of the programs that do the work,
    `arguments` whatever else changes the output (never paths, threads or times).
    """

    name: str
    inputs: Mapping[str, str]
    tools: Mapping[str, str]
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The digest that names this action."""
        return digest_of(
            [FORMAT, self.name, dict(self.inputs), dict(self.tools), dict(self.arguments)]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an action made: objects by role, which of them list a folder, and plain facts."""

    outputs: Mapping[str, Blob] = field(default_factory=dict)
    trees: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    cached: bool = False


def lookup(store: Store, action: Action) -> Outcome | None:
    """Return the recorded outcome if every byte that it names is in the store, else None.

    A record of before `store.not_before` does not count.
    """
    path = store.actions / f"{action.key}.json"
    try:
        with full_disk_explained(path):
            if path.stat().st_mtime < store.not_before:
                return None
            data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        outcome = _parse(data)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, UserError):
        path.unlink(missing_ok=True)  # a record that can't be read is only work to do again
        return None
    for role, blob in outcome.outputs.items():
        if not store.has(blob):
            return None
        if role in outcome.trees and not _whole(store, blob):
            return None
    _mark_used(path)
    return outcome


def perform(store: Store, action: Action, make: Callable[[], Outcome]) -> Outcome:
    """Return the outcome of `action`, from the cache or by calling `make` once."""
    known = lookup(store, action)
    return known if known is not None else record(store, action, make())


def record(store: Store, action: Action, outcome: Outcome) -> Outcome:
    """Remember what an action made; its outputs must be in the store."""
    value = {
        "format": FORMAT,
        "action": action.name,
        "inputs": dict(action.inputs),
        "tools": dict(action.tools),
        "arguments": dict(action.arguments),
        "outputs": {role: [b.sha256, b.size] for role, b in outcome.outputs.items()},
        "trees": list(outcome.trees),
        "facts": dict(outcome.facts),
    }
    store.write(store.actions / f"{action.key}.json", canonical_json(value))
    return outcome


def outputs_of(data: bytes) -> tuple[str, Mapping[str, Blob]]:
    """Return the name of the recorded action, and its outputs by role.

    Raises:
        ValueError: it is no such record.
    """
    try:
        return str(json.loads(data)["action"]), _parse(data).outputs
    except (LookupError, TypeError, AttributeError, RecursionError, UserError) as error:
        raise ValueError("no record of an action") from error


def _mark_used(path: Path) -> None:
    """Let the record's time say when it was last of use: collection goes by it."""
    with contextlib.suppress(OSError):
        if time.time() - path.stat().st_mtime > _DAY:
            os.utime(path)


def _parse(data: bytes) -> Outcome:
    value = json.loads(data)
    outputs = {
        role: Blob(names.digest(sha), int(size)) for role, (sha, size) in value["outputs"].items()
    }
    return Outcome(
        outputs=outputs,
        trees=tuple(value["trees"]),
        facts=dict(value["facts"]),
        cached=True,
    )


def _whole(store: Store, blob: Blob) -> bool:
    try:
        return tree_is_whole(store, load_tree(store, blob))
    except IntegrityError:
        return False
