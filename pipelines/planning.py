"""What building a model would do, and the disk it needs, before anything is done."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import dagster as dg

from quantmint.assets.graph.line import Line, last_metadata
from quantmint.assets.graph.upstream import local_looks
from quantmint.assets.source import source_folder
from quantmint.assets.sources import checkpoint, gguf_file
from quantmint.errors import QuantmintError
from quantmint.files import existing_parent
from quantmint.home import find_home
from quantmint.native.ftypes import ftype
from quantmint.pipelines.assembly import build_definitions, line_of
from quantmint.pipelines.build import wanted_keys
from quantmint.pipelines.instance import open_instance
from quantmint.pipelines.spec import Model
from quantmint.pipelines.stale import Reason, stale
from quantmint.registry import gguf
from quantmint.registry.store import Store

# Measured: the unpacked source, the build tree and the bundle of one kernel on x86-64.
KERNEL_BYTES: Final = 420_000_000
# A matrix holds one 32-bit sum for each column, and columns are thousands of weights long.
BYTES_PER_WEIGHT: Final = {"source_weights": 2.0, "fp16_gguf": 2.0, "imatrix": 4 / 2048}
RECORD_BYTES: Final = 16_384
# Where a step stands in the line; kernels are second.
MADE_BEFORE: Final = {"source_weights": 0, "fp16_gguf": 2, "imatrix": 3}


@dataclass(frozen=True, slots=True)
class Step:
    """One asset: whether it would be built, why, and the bytes it takes (None: not known yet).

    If it is not `certain`, that depends on what is built before it: bytes that come out the same
    stop there.
    """

    asset: str
    reason: str | None
    size: int | None
    certain: bool = True


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
    line = line_of(model)
    wanted = wanted_keys(line, variants)
    defs = build_definitions([model])
    looks = local_looks(line)
    if (home.dagster / "dagster.yaml").is_file():
        with open_instance(home) as instance:
            reasons = stale(defs, instance, store, looks)
            source = last_metadata(instance, line.key("source_weights"))
    else:
        reasons, source = stale(defs, None, store, looks), None
    weights = int(source["weights"]) if source else _weights(model)
    graph = defs.resolve_asset_graph()
    steps = [
        _step(key, reasons.get(key), _size(line, key, weights, source))
        for key in sorted(
            (key for key in graph.toposorted_asset_keys if key in wanted),
            key=lambda key: place_in_line(line, key),
        )
    ]
    free = shutil.disk_usage(existing_parent(home.root)).free
    return Plan(model.spec.model, tuple(steps), free, weights)


def place_in_line(line: Line, key: dg.AssetKey) -> tuple[int, int]:
    """Order steps as the line runs: source, kernels, FP16, matrix, variants, assays.

    Variants come in the order of the model file.
    """
    if key.path[0] != line.recipe.model:
        return (1, 0)
    leaf, variants = key.path[-1], line.recipe.variants
    if leaf in MADE_BEFORE:
        return (MADE_BEFORE[leaf], 0)
    if leaf in variants:
        return (4, variants.index(leaf))
    found = [at for at, name in enumerate(variants) if leaf.startswith(f"{name}_on_")]
    return (5, found[0]) if found else (6, 0)


def _step(key: dg.AssetKey, reason: Reason | None, size: int | None) -> Step:
    if reason is None:
        return Step(key.to_user_string(), None, size)
    return Step(key.to_user_string(), reason.text, size, reason.certain)


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
    leaf = key.path[-1]
    if key.path[0] == "kernels":
        return KERNEL_BYTES
    if leaf not in MADE_BEFORE and leaf not in line.recipe.variants:
        return RECORD_BYTES
    if leaf == "source_weights" and source:
        return int(source["size"])
    if weights is None:
        return None
    per_weight = BYTES_PER_WEIGHT[leaf] if leaf in MADE_BEFORE else ftype(leaf).bits / 8
    return int(weights * per_weight)
