"""The source weights, as the upstream published them."""

# No postponed annotations here: Dagster reads the type of `context` when an asset is defined.
from collections.abc import Mapping
from typing import Any

import dagster as dg

from quantmint.assets.graph.line import (
    OWNERS,
    Line,
    Result,
    explained,
    record,
    reporter,
    upstream,
    version,
)
from quantmint.assets.mint import Mint, open_mint
from quantmint.assets.report.graph import source_entry, source_metadata
from quantmint.assets.source import SourceWeights, fetch_source, fingerprint


def source_asset(line: Line) -> dg.AssetsDefinition:
    """Return the asset that brings a model's source into the store."""
    recipe = line.recipe
    source = recipe.source

    @dg.asset(
        key=line.key("source_weights"),
        group_name=line.group,
        description=f"The weights of {recipe.title} as their author published them: "
        f"`{source.model_dump(mode='json', exclude_defaults=True)}`.",
        code_version=version("source", source.model_dump(mode="json"), recipe.family),
        kinds={"huggingface"} if source.hub else {"file"},
        owners=OWNERS,
        pool="network",
    )
    def source_weights(context: dg.AssetExecutionContext) -> Result:
        with explained():
            mint = open_mint(reporter(context))
            found = fetch_source(mint, recipe, line.base)
            tracked = record(mint, line, context, source_entry(recipe, found))
        metadata = source_metadata(found) | {"fingerprint": fingerprint(recipe, line.base)}
        return dg.MaterializeResult(
            data_version=dg.DataVersion(found.blob.sha256), metadata=metadata | tracked
        )

    return source_weights


def source_record(context: dg.AssetExecutionContext, line: Line, mint: Mint) -> SourceWeights:
    """Return the source as it was last brought in.

    Raises:
        UserError: it never was.
        IntegrityError: its bytes are gone from the store.
    """
    return source_before(mint, upstream(context, line.key("source_weights")))


def source_before(mint: Mint, found: Mapping[str, Any]) -> SourceWeights:
    """Return a source that is in the store, by the metadata that its asset page keeps of it.

    Raises:
        IntegrityError: its bytes are gone from the store.
    """
    return SourceWeights(
        blob=mint.store.find(found["sha256"]),
        is_checkpoint=bool(found["is_checkpoint"]),
        architecture=str(found["architecture"]),
        weights=int(found["weights"]),
        commit=str(found["commit"]),
        size=int(found["size"]),
        origin=str(found["origin"]),
        cached=True,
    )
