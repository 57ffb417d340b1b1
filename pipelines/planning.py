"""What building a model would do, and the disk it needs, before anything is done."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import dagster as dg

from quantmint.assets.definitions import Line, kernel_key, last_metadata, model_kernel
from quantmint.assets.source import source_folder
from quantmint.assets.sources import checkpoint, gguf_file
from quantmint.errors import QuantmintError
from quantmint.files import existing_parent
from quantmint.home import find_home
from quantmint.native.ftypes import ftype
from quantmint.pipelines.build import wanted_keys
from quantmint.pipelines.definitions import build_definitions
from quantmint.pipelines.instance import open_instance
from quantmint.pipelines.spec import Model
from quantmint.pipelines.stale import Reason, stale
from quantmint.registry import gguf
from quantmint.registry.store import Store

# Measured: the unpacked source, the build tree and the bundle of one kernel on x86-64.
KERNEL_BYTES: Final = 420_000_000
FP16_BYTES: Final = 2.0


@dataclass(frozen=True, slots=True)
class Step:
    """One asset: whether it would be built, why, and the bytes it takes (None: not known yet)."""

    asset: str
    reason: str | None
    size: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """All steps of a model, upstream first; `free` counts the bytes left on the store's disk."""

    model: str
    steps: tuple[Step, ...]
    free: int
    weights: int | None

    @property
    def needed(self) -> int | None:
        """Bytes that the steps to be built take together, or None where a size is not known."""
        sizes = [step.size for step in self.steps if step.reason is not None]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None


def make_plan(model: Model, variants: Sequence[str] = ()) -> Plan:
    """Return what `build_model` would do. Nothing is fetched, built or written to the store.

    Raises:
        UserError: a variant is not in the model file.
    """
    home = find_home()
    store = Store(home.store)
    line = Line(model.spec, model.base)
    wanted = wanted_keys(line, variants)
    defs = build_definitions([model])
    if (home.dagster / "dagster.yaml").is_file():
        with open_instance(home) as instance:
            reasons = stale(defs, instance, store, model)
            source = last_metadata(instance, line.key("source_weights"))
    else:
        reasons, source = stale(defs, None, store, model), None
    weights = int(source["weights"]) if source else _weights(model)
    graph = defs.resolve_asset_graph()
    steps = [
        Step(key.to_user_string(), _text(reasons.get(key)), _size(line, key, weights, source))
        for key in sorted(
            (key for key in graph.toposorted_asset_keys if key in wanted),
            key=lambda key: _place(line, key),
        )
    ]
    free = shutil.disk_usage(existing_parent(home.root)).free
    return Plan(model.spec.model, tuple(steps), free, weights)


def _place(line: Line, key: dg.AssetKey) -> int:
    """Order steps as the line runs: source, kernel, FP16, then variants as the file lists them."""
    order = ["source_weights", "fp16_gguf", *line.recipe.variants]
    return order.index(key.path[-1]) * 2 if key.path[0] == line.recipe.model else 1


def _text(reason: Reason | None) -> str | None:
    return None if reason is None else reason.text


def _weights(model: Model) -> int | None:
    """Count the weights of a source that was not fetched yet, from headers or the model file."""
    recipe = model.spec
    try:
        if recipe.source.gguf is not None:
            return gguf.read(gguf_file.locate(recipe.source.gguf, model.base)).weights
        if recipe.source.hub is None:
            folder = source_folder(recipe, model.base)
            checkpoint.check_listing([path.name for path in folder.iterdir()], str(folder))
            return checkpoint.count_weights(folder)
    except (QuantmintError, OSError):
        pass  # the build itself will say what is wrong with the source
    return recipe.parameters


def _size(line: Line, key: dg.AssetKey, weights: int | None, source: Any) -> int | None:  # noqa: ANN401
    if key == kernel_key(model_kernel(line.recipe)):
        return KERNEL_BYTES
    if weights is None:
        return None
    leaf = key.path[-1]
    if leaf == "source_weights":
        return int(source["size"]) if source else int(weights * FP16_BYTES)
    if leaf == "fp16_gguf":
        return int(weights * FP16_BYTES)
    return int(weights * ftype(leaf).bits / 8)
