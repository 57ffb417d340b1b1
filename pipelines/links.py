"""Links from an asset's page to the model file and to the code that makes it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import dagster as dg

Asset = dg.AssetsDefinition | dg.AssetSpec
_REFERENCES: Final = "dagster/code_references"


def with_links(assets: Sequence[Asset], file: Path, *, label: str = "model file") -> list[Asset]:
    """Return the assets with links to `file` and to the code of their steps."""
    with warnings.catch_warnings():
        # Dagster calls its code references beta. They are links on a page: if one goes, no more.
        warnings.simplefilter("ignore", dg.BetaWarning)
        to_file = dg.LocalFileCodeReference(file_path=str(file), line_number=1, label=label)
        return [_linked(asset, to_file) for asset in assets]


def _linked(asset: Asset, to_file: dg.LocalFileCodeReference) -> Asset:
    if isinstance(asset, dg.AssetSpec):
        return _with(asset, to_file)
    # Dagster's own `with_source_code_references` reads the file anew for each asset: with fifty
    # models half a second of the time until the page is there.
    code = asset.op.compute_fn.decorated_fn.__code__  # type: ignore[union-attr]
    to_code = dg.LocalFileCodeReference(
        file_path=code.co_filename,
        line_number=code.co_firstlineno,
        label=Path(code.co_filename).name,
    )
    return asset.map_asset_specs(lambda spec: _with(spec, to_file, to_code))


def _with(spec: dg.AssetSpec, *links: dg.LocalFileCodeReference) -> dg.AssetSpec:
    shown = dg.CodeReferencesMetadataValue(code_references=list(links))
    return spec.merge_attributes(metadata={_REFERENCES: shown})
