"""The variants, struck from the FP16 file in one pass."""

# No postponed annotations here: Dagster reads the type of `context` when an asset is defined.
from collections.abc import Iterator, Sequence

import dagster as dg

from quantmint.assets.graph.conversion import fp16_record
from quantmint.assets.graph.imatrix import LEAF, imatrix_record
from quantmint.assets.graph.line import (
    OWNERS,
    Line,
    bundle_of,
    check_result,
    explained,
    kernel_key,
    logs,
    record,
)
from quantmint.assets.graph.made_with import Made, made_with, meant, results
from quantmint.assets.graph.order import Order
from quantmint.assets.mint import Mint
from quantmint.assets.planned import HEADER, check_header
from quantmint.assets.report.graph import variant_entry, variant_metadata
from quantmint.assets.variants import strike_variants


def variant_assets(line: Line) -> dg.AssetsDefinition:
    """Return all variants of a model: one step, since one pass makes any subset of them."""
    recipe = line.recipe
    inputs = [line.key("fp16_gguf"), *([line.key(LEAF)] if recipe.imatrix else [])]
    gates = {"max_fallback_tensors": recipe.gates.max_fallback_tensors}
    made_of = {v: made_with("variant", variant=v, gates=gates) for v in recipe.variants}
    specs = [
        dg.AssetSpec(
            line.key(variant),
            deps=[*inputs, kernel_key(line.kernel)],
            group_name=line.group,
            description=f"`{recipe.file_name(variant)}`: {recipe.title} quantized to {variant}.",
            code_version=made_of[variant].version,
            metadata=made_of[variant].metadata,
            skippable=True,
            kinds={"gguf", "quantized"},
            tags={"quantmint/variant": variant},
            owners=OWNERS,
        )
        for variant in recipe.variants
    ]
    checks = [
        dg.AssetCheckSpec(
            HEADER,
            asset=line.key(variant),
            blocking=True,
            description="Well-formed and as planned: the FP16 file's tensors and keys, the "
            "variant's types, no unexpected fallback.",
        )
        for variant in recipe.variants
    ]

    @dg.multi_asset(
        name=line.group.replace("/", "__") + "__variants",
        specs=specs,
        check_specs=checks,
        can_subset=True,
        pool="cpu",
    )
    def variants(context: dg.AssetExecutionContext, order: Order) -> Iterator[Made]:
        chosen = [v for v in recipe.variants if line.key(v) in meant(context)]
        with explained():
            wanted = [v for v in chosen if order.wants_variant(line, v)]
            yield from _strike(context, line, order.mint(context), wanted)

    return variants


def _strike(
    context: dg.AssetExecutionContext, line: Line, mint: Mint, wanted: Sequence[str]
) -> Iterator[Made]:
    recipe = line.recipe
    bundle = bundle_of(mint, line.kernel)
    fp16 = fp16_record(context, line, mint, bundle)
    matrix = imatrix_record(context, line, mint)
    for struck in strike_variants(mint, recipe, fp16, bundle, wanted, imatrix=matrix):
        verdict = check_header(recipe, struck, fp16)
        word = "passed" if verdict.passed else "FAILED"
        mint.report(f"{struck.variant}: {verdict.check} {word}: {verdict.reason}")
        tracked = record(mint, line, context, variant_entry(struck, verdict))
        key, path = line.key(struck.variant), mint.store.path(struck.blob.sha256)
        shown = variant_metadata(struck, path) | logs(mint, line) | tracked
        checks = [check_result(key, verdict)]
        yield from results(context, key, struck.blob.sha256, shown, checks)
