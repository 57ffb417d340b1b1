"""The Dagster definitions: every model file becomes a group of assets, every kernel in use one."""

from __future__ import annotations

import os
from collections.abc import Iterable

import dagster as dg

from quantmint.assets.definitions import (
    Line,
    kernel_asset,
    llama_cpp_spec,
    model_assets,
    model_kernel,
)
from quantmint.pipelines.spec import Model, load_all


def build_definitions(models: Iterable[Model]) -> dg.Definitions:
    """Return the definitions of these models and of the kernels that they are tested on."""
    lines = [Line(model.spec, model.base) for model in models]
    kernels = {model_kernel(line.recipe).name: model_kernel(line.recipe) for line in lines}
    assets: list[dg.AssetsDefinition | dg.AssetSpec] = [llama_cpp_spec()]
    assets += [kernel_asset(kernel) for kernel in kernels.values()]
    for line in lines:
        assets += model_assets(line)
    return dg.Definitions(assets=assets, executor=executor())


def executor() -> dg.ExecutorDefinition:
    """Return how steps run in the web UI: one warm process is forked for each, as many as cores."""
    return dg.multiprocess_executor.configured(
        {
            "max_concurrent": len(os.sched_getaffinity(0)),
            "start_method": {"forkserver": {"preload_modules": ["quantmint.assets.definitions"]}},
        }
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Return the definitions of every model that has a file."""
    return build_definitions(load_all())
