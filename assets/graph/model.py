"""All assets of one model, upstream first."""

import dagster as dg

from quantmint.assets.graph.assay import assay_assets
from quantmint.assets.graph.conversion import fp16_asset
from quantmint.assets.graph.imatrix import imatrix_assets
from quantmint.assets.graph.line import Line
from quantmint.assets.graph.source import source_asset
from quantmint.assets.graph.variants import variant_assets


def model_assets(line: Line) -> list[dg.AssetsDefinition]:
    """Return source weights, FP16 file, importance matrix, variants, assay and report."""
    return [
        source_asset(line),
        fp16_asset(line),
        *imatrix_assets(line),
        variant_assets(line),
        assay_assets(line),
    ]
