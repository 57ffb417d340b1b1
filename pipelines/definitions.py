"""The Dagster definitions: every model file becomes a group of assets, every kernel in use one."""

from __future__ import annotations

import os
from collections.abc import Iterable

import dagster as dg

from quantmint.assets.graph.kernels import kernel_assays, kernel_assets
from quantmint.assets.graph.line import Line
from quantmint.assets.graph.model import model_assets
from quantmint.assets.graph.order import ORDER, Order
from quantmint.assets.graph.release import release_asset
from quantmint.assets.graph.upstream import llama_cpp_spec
from quantmint.pipelines.spec import Model, load_all


def line_of(model: Model) -> Line:
    """Return the line of a model file."""
    return Line(model.spec, model.base, model.file)


def build_definitions(models: Iterable[Model]) -> dg.Definitions:
    """Return the definitions of these models and of every kernel of this kind of machine."""
    assets: list[dg.AssetsDefinition | dg.AssetSpec] = [
        llama_cpp_spec(),
        kernel_assets(),
        kernel_assays(),
    ]
    for model in models:
        line = line_of(model)
        assets += model_assets(line)
        if model.spec.release is not None:
            assets.append(release_asset(line, model.spec.release))
    return dg.Definitions(assets=assets, resources={ORDER: Order()}, executor=executor())


def executor() -> dg.ExecutorDefinition:
    """Return how steps run in the web UI: one warm process is forked for each, as many as cores."""
    return dg.multiprocess_executor.configured(
        {
            "max_concurrent": len(os.sched_getaffinity(0)),
            "start_method": {"forkserver": {"preload_modules": ["quantmint.assets.graph.model"]}},
        }
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Return the definitions of every model that has a file."""
    return build_definitions(load_all())
