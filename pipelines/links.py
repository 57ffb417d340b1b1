"""Links from an asset's page to the model file and to the code that makes it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import dagster as dg

Asset = dg.AssetsDefinition | dg.AssetSpec
_REFERENCES: Final = "dagster/code_references"


def with_links(
    assets: Sequence[Asset], file: Path | None, *, label: str = "model file"
) -> list[Asset]:
    """Return the assets with links to the code of their steps, and to the file if there is one."""
    with warnings.catch_warnings():
        # Dagster calls its code references beta. They are links on a page: if one goes, no more.
        warnings.simplefilter("ignore", dg.BetaWarning)
        named = [_with_file(asset, file, label) for asset in assets] if file is not None else assets
        return list(dg.with_source_code_references(named))  # type: ignore[arg-type]


def _with_file(asset: Asset, file: Path, label: str) -> Asset:
    link = dg.LocalFileCodeReference(file_path=str(file), line_number=1, label=label)
    shown = {_REFERENCES: dg.CodeReferencesMetadataValue(code_references=[link])}

    def linked(spec: dg.AssetSpec) -> dg.AssetSpec:
        return spec.merge_attributes(metadata=shown)

    if isinstance(asset, dg.AssetSpec):
        return linked(asset)
    return asset.map_asset_specs(linked)
