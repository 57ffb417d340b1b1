"""The asset graph: every model file becomes a group of assets, every kernel one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import dagster as dg

from quantmint.assets.graph.kernels import kernel_assays, kernel_assets
from quantmint.assets.graph.line import OWNERS, Line, kernels_of
from quantmint.assets.graph.model import model_assets
from quantmint.assets.graph.order import ORDER, Order
from quantmint.assets.graph.release import release_asset
from quantmint.assets.graph.upstream import llama_cpp_spec
from quantmint.native.matrix import MATRIX_FILE
from quantmint.pipelines.links import with_links
from quantmint.pipelines.spec import Model


def line_of(model: Model) -> Line:
    """Return the line of a model file."""
    return Line(model.spec, model.base, kernels_of(model.spec))


def told_apart(models: Iterable[Model]) -> tuple[list[Model], dict[Path, str]]:
    """Return models whose names differ for Dagster too, and why each of the others is left out."""
    first: dict[str, Model] = {}
    alike: dict[Path, str] = {}
    for model in models:
        other = first.setdefault(line_of(model).identifier, model)
        if other is not model:
            alike[model.file] = (
                f"in the graph, {model.spec.model!r} is the same name as {other.spec.model!r}\n"
                "  mend: rename one of the two models and its file"
            )
    return list(first.values()), alike


def unreadable_spec(path: Path, why: str) -> dg.AssetSpec:
    """Return what stands in the graph for a model file that can't be read."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", path.stem)[:100] or "_"
    return dg.AssetSpec(
        dg.AssetKey(["unreadable", name]),
        group_name="unreadable_model_files",
        description=f"The model file `{path}` can't be read, so its model is not here:\n\n"
        f"```\n{why}\n```",
        kinds={"yaml", "error"},
        owners=OWNERS,
    )


def build_definitions(models: Iterable[Model]) -> dg.Definitions:
    """Return the definitions of these models and of every kernel of this kind of machine."""
    assets: list[dg.AssetsDefinition | dg.AssetSpec] = [
        llama_cpp_spec(),
        *with_links([kernel_assets(), kernel_assays()], MATRIX_FILE, label="kernel matrix"),
    ]
    for model in models:
        line = line_of(model)
        made = model_assets(line)
        if model.spec.release is not None:
            made.append(release_asset(line, model.spec.release))
        assets += with_links(made, model.file)
    return dg.Definitions(assets=assets, resources={ORDER: Order()}, executor=executor())


def executor() -> dg.ExecutorDefinition:
    """Return how steps run in the web UI: one warm process is forked for each, as many as cores."""
    return dg.multiprocess_executor.configured(
        {
            "max_concurrent": len(os.sched_getaffinity(0)),
            "start_method": {"forkserver": {"preload_modules": ["quantmint.assets.graph.model"]}},
        }
    )
