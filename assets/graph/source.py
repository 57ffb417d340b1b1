"""The source weights, as the upstream published them."""

# No postponed annotations here: Dagster reads the type of `context` when an asset is defined.
from collections.abc import Mapping
from typing import Any

import dagster as dg

from quantmint.assets.graph.line import OWNERS, PATIENCE, Line, explained, record, upstream
from quantmint.assets.graph.made_with import Result, finished, made_with
from quantmint.assets.graph.order import Order
from quantmint.assets.graph.upstream import UPSTREAM, look_metadata, see_in_step
from quantmint.assets.mint import Mint
from quantmint.assets.report.graph import source_entry, source_metadata
from quantmint.assets.source import SourceWeights, fetch_source
from quantmint.assets.upstream import look_at_source


def source_asset(line: Line) -> dg.AssetsDefinition:
    """Return the asset that brings a model's source into the store."""
    recipe = line.recipe
    source = recipe.source
    key = line.key("source_weights")
    made = made_with("source", source=source.model_dump(mode="json"), family=recipe.family)

    @dg.asset(
        key=key,
        deps=[line.key(UPSTREAM)],
        group_name=line.group,
        description=f"The weights of {recipe.title} as their author published them: "
        f"`{source.model_dump(mode='json', exclude_defaults=True)}`.",
        code_version=made.version,
        metadata=made.metadata,
        kinds={"huggingface"} if source.hub else {"file"},
        owners=OWNERS,
        pool="network",
        retry_policy=PATIENCE,
    )
    def source_weights(context: dg.AssetExecutionContext, order: Order) -> Result:
        with explained():
            mint = order.mint(context)
            seen = look_at_source(recipe, line.base)
            see_in_step(context, line.key(UPSTREAM), seen)
            found = fetch_source(mint, recipe, line.base, commit=seen.commit)
            tracked = record(mint, line, context, source_entry(recipe, found))
        metadata = source_metadata(found) | look_metadata(seen) | tracked
        return finished(context, key, found.blob.sha256, metadata)

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
