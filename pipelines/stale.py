"""What is out of date, and why: by its arguments, its inputs' data versions and the bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from quantmint.assets.graph.line import CODE_TAG, DATA_TAG, INPUT_TAG
from quantmint.assets.graph.made_with import MADE_WITH
from quantmint.assets.graph.upstream import UPSTREAM, Look, look_of
from quantmint.errors import IntegrityError
from quantmint.pipelines.reasons import changed_arguments, changed_input, changed_upstream
from quantmint.registry.store import Store
from quantmint.registry.trees import load_tree, tree_is_whole

SOURCE = "source_weights"


@dataclass(frozen=True, slots=True)
class Last:
    """The latest materialization of an asset: its version tags and metadata values."""

    tags: Mapping[str, str]
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an asset is out of date.

    If it is not `certain`, that depends on what an upstream asset which is made anew comes out as.
    If it `spreads`, the same holds for what is made of the asset.
    """

    text: str
    certain: bool = True
    spreads: bool = True


def last_of(instance: dg.DagsterInstance, keys: Sequence[dg.AssetKey]) -> dict[dg.AssetKey, Last]:
    """Return the latest materialization of each asset that has one, in one query."""
    found: dict[dg.AssetKey, Last] = {}
    for record in instance.get_asset_records(list(keys)):
        event = record.asset_entry.last_materialization
        if event is not None and event.asset_materialization is not None:
            made = event.asset_materialization
            values = {name: value.value for name, value in made.metadata.items()}
            found[record.asset_entry.asset_key] = Last(made.tags or {}, values)
    return found


def stale(
    defs: dg.Definitions,
    instance: dg.DagsterInstance | None,
    store: Store,
    looks: Mapping[dg.AssetKey, Look],
) -> dict[dg.AssetKey, Reason]:
    """Return the assets that are out of date, upstream first, each with its reason.

    `looks` are upstreams that were just looked at; of others the last look counts.
    """
    graph = defs.resolve_asset_graph()
    order = graph.toposorted_asset_keys
    last = last_of(instance, order) if instance is not None else {}
    seen = {
        key: look_of(made.metadata) for key, made in last.items() if key.path[-1] == UPSTREAM
    } | dict(looks)
    judge = _Judge(graph, last, seen, store)
    for key in order:
        if key in graph.materializable_asset_keys:
            judge.judge(key)
    return judge.out


@dataclass(frozen=True, slots=True)
class _Judge:
    """Judges assets in topological order."""

    graph: Any
    last: Mapping[dg.AssetKey, Last]
    seen: Mapping[dg.AssetKey, Look]
    store: Store
    out: dict[dg.AssetKey, Reason] = field(default_factory=dict)

    def judge(self, key: dg.AssetKey) -> None:
        reason = self._own(key) or self._inputs(key) or _bytes_gone(self.store, self.last[key])
        if reason is not None:
            self.out[key] = reason

    def _own(self, key: dg.AssetKey) -> Reason | None:
        if key not in self.last:
            return Reason("never built")
        node, made = self.graph.get(key), self.last[key]
        if node.code_version is None or made.tags.get(CODE_TAG) == node.code_version:
            return None
        now = node.metadata.get(MADE_WITH)
        said = changed_arguments(made.metadata.get(MADE_WITH), now.value if now else {})
        return Reason(said)

    def _inputs(self, key: dg.AssetKey) -> Reason | None:
        """Say which input changed; one that may come out the same only if no other did."""
        perhaps = None
        made = self.last[key]
        for parent in sorted(self.graph.get(key).parent_keys):
            name = parent.to_user_string()
            if parent in self.seen and key.path[-1] == SOURCE:
                reason = self._upstream(made, self.seen[parent])
                if reason is not None:
                    return reason
            elif parent in self.out and self.out[parent].spreads:
                perhaps = perhaps or Reason(f"{name} is out of date", certain=False)
            elif parent in self.last and parent.path[-1] != UPSTREAM:
                before, now = made.tags.get(INPUT_TAG + name), self.last[parent].tags.get(DATA_TAG)
                if before != now:
                    return Reason(changed_input(self.store, name, before, now))
        return perhaps or self._gone_input(key)

    def _gone_input(self, key: dg.AssetKey) -> Reason | None:
        parents = {parent.to_user_string() for parent in self.graph.get(key).parent_keys}
        inputs = {t.removeprefix(INPUT_TAG) for t in self.last[key].tags if t.startswith(INPUT_TAG)}
        gone = sorted(inputs - parents)
        return Reason(f"{gone[0]} is no input of it any more") if gone else None

    def _upstream(self, made: Last, now: Look) -> Reason | None:
        """The source says itself which look at the upstream it was made of."""
        if "upstream_version" not in made.metadata:
            return Reason("made by an older quantmint, which did not look at the upstream")
        before = look_of(made.metadata)
        return None if before.version == now.version else Reason(changed_upstream(before, now))


def _bytes_gone(store: Store, last: Last) -> Reason | None:
    """The same recipe gives the same bytes again, so nothing downstream is touched."""
    try:
        blob = store.find(str(last.metadata["sha256"]))
        is_tree = "files" in last.metadata or last.metadata.get("is_checkpoint") is True
        if is_tree and not tree_is_whole(store, load_tree(store, blob)):
            return Reason("files of it are gone from the store", spreads=False)
        if not is_tree and blob.size != last.metadata["size"]:
            return Reason("its bytes in the store are cut off", spreads=False)
    except (IntegrityError, KeyError):
        return Reason("its bytes are gone from the store", spreads=False)
    return None
