"""What is out of date, and why: by code version, input data versions and the bytes themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from quantmint.assets.source import fingerprint
from quantmint.errors import IntegrityError, QuantmintError
from quantmint.pipelines.spec import Model
from quantmint.registry.store import Store
from quantmint.registry.trees import load_tree, tree_is_whole

_CODE = "dagster/code_version"
_DATA = "dagster/data_version"
_INPUT = "dagster/input_data_version/"


@dataclass(frozen=True, slots=True)
class Last:
    """The latest materialization of an asset: its version tags and metadata values."""

    tags: Mapping[str, str]
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an asset is out of date. If it `spreads`, what is made of it may change as well."""

    text: str
    spreads: bool = True


def last_of(instance: dg.DagsterInstance, keys: list[dg.AssetKey]) -> dict[dg.AssetKey, Last]:
    """Return the latest materialization of each asset that has one, in one query."""
    found: dict[dg.AssetKey, Last] = {}
    for record in instance.get_asset_records(keys):
        event = record.asset_entry.last_materialization
        if event is not None and event.asset_materialization is not None:
            made = event.asset_materialization
            values = {name: value.value for name, value in made.metadata.items()}
            found[record.asset_entry.asset_key] = Last(made.tags or {}, values)
    return found


def stale(
    defs: dg.Definitions, instance: dg.DagsterInstance | None, store: Store, model: Model
) -> dict[dg.AssetKey, Reason]:
    """Return the assets that are out of date, upstream first, each with its reason."""
    graph = defs.resolve_asset_graph()
    keys = [key for key in graph.toposorted_asset_keys if key in graph.materializable_asset_keys]
    last = last_of(instance, keys) if instance is not None else {}
    out: dict[dg.AssetKey, Reason] = {}
    for key in keys:
        node = graph.get(key)
        reason = _versions(key, node.code_version, sorted(node.parent_keys), last, out)
        reason = reason or _source_changed(key, last[key], model) or _bytes_gone(store, last[key])
        if reason is not None:
            out[key] = reason
    return out


def _versions(
    key: dg.AssetKey,
    code_version: str | None,
    parents: list[dg.AssetKey],
    last: Mapping[dg.AssetKey, Last],
    out: Mapping[dg.AssetKey, Reason],
) -> Reason | None:
    if key not in last:
        return Reason("never built")
    tags = last[key].tags
    if code_version is not None and tags.get(_CODE) != code_version:
        return Reason("its recipe or its tools changed")
    for parent in parents:
        name = parent.to_user_string()
        if parent in out and out[parent].spreads:
            return Reason(f"{name} is out of date")
        if parent in last and last[parent].tags.get(_DATA) != tags.get(_INPUT + name):
            return Reason(f"{name} changed")
    return None


def _source_changed(key: dg.AssetKey, last: Last, model: Model) -> Reason | None:
    if key.path[-1] != "source_weights":
        return None
    try:
        now = fingerprint(model.spec, model.base)
    except QuantmintError:
        return None  # the source is gone, what was made of it is still good
    return None if now == last.metadata.get("fingerprint") else Reason("the local source changed")


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
