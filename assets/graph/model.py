"""All assets of one model, upstream first."""

import dagster as dg

from quantmint.assets.graph.assay import assay_assets
from quantmint.assets.graph.conversion import fp16_asset
from quantmint.assets.graph.imatrix import imatrix_assets
from quantmint.assets.graph.line import Line
from quantmint.assets.graph.source import source_asset
from quantmint.assets.graph.upstream import upstream_specs
from quantmint.assets.graph.variants import variant_assets


def model_assets(line: Line) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Return upstreams, source weights, FP16 file, matrix, variants, assay and report."""
    return [
        *upstream_specs(line),
        source_asset(line),
        fp16_asset(line),
        *imatrix_assets(line),
        variant_assets(line),
        assay_assets(line),
    ]
