"""The variants, struck from the FP16 file in one pass."""

# No postponed annotations here: Dagster reads the type of `context` when an asset is defined.
from collections.abc import Iterator, Sequence

import dagster as dg

from quantmint.assets.graph.conversion import fp16_record
from quantmint.assets.graph.imatrix import LEAF, imatrix_record
from quantmint.assets.graph.line import (
    OWNERS,
    Line,
    Result,
    bundle_of,
    check_result,
    explained,
    kernel_key,
    logs,
    record,
    reporter,
    version,
)
from quantmint.assets.mint import open_mint
from quantmint.assets.planned import HEADER, check_header
from quantmint.assets.report.graph import variant_entry, variant_metadata
from quantmint.assets.variants import strike_variants


def variant_assets(line: Line) -> dg.AssetsDefinition:
    """Return all variants of a model: one step, since one pass makes any subset of them."""
    recipe = line.recipe
    inputs = [line.key("fp16_gguf"), *([line.key(LEAF)] if recipe.imatrix else [])]
    specs = [
        dg.AssetSpec(
            line.key(variant),
            deps=[*inputs, kernel_key(line.kernel)],
            group_name=line.group,
            description=f"`{recipe.file_name(variant)}`: {recipe.title} quantized to {variant}.",
            code_version=version("variant", variant, recipe.gates.max_fallback_tensors),
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
    def variants(context: dg.AssetExecutionContext) -> Iterator[Result]:
        wanted = [v for v in recipe.variants if line.key(v) in context.selected_asset_keys]
        with explained():
            yield from _strike(context, line, wanted)

    return variants


def _strike(
    context: dg.AssetExecutionContext, line: Line, wanted: Sequence[str]
) -> Iterator[Result]:
    recipe = line.recipe
    mint = open_mint(reporter(context))
    bundle = bundle_of(mint, line.kernel)
    fp16 = fp16_record(context, line, mint, bundle)
    matrix = imatrix_record(context, line, mint)
    for struck in strike_variants(mint, recipe, fp16, bundle, wanted, imatrix=matrix):
        verdict = check_header(recipe, struck, fp16)
        word = "passed" if verdict.passed else "FAILED"
        mint.report(f"{struck.variant}: {verdict.check} {word}: {verdict.reason}")
        tracked = record(mint, line, context, variant_entry(struck, verdict))
        key, path = line.key(struck.variant), mint.store.path(struck.blob.sha256)
        yield dg.MaterializeResult(
            asset_key=key,
            data_version=dg.DataVersion(struck.blob.sha256),
            metadata=variant_metadata(struck, path) | logs(mint, line) | tracked,
            check_results=[check_result(key, verdict)],
        )
