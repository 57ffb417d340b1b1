"""The FP16 file that every variant is struck from."""

# No postponed annotations here: Dagster reads the type of `context` when an asset is defined.
import dagster as dg

from quantmint.assets.conversion.checks import CHECKS, check_conversion
from quantmint.assets.convert import Converted, converter_identity, make_fp16
from quantmint.assets.graph.line import (
    OWNERS,
    Line,
    bundle_of,
    check_result,
    explained,
    kernel_key,
    logs,
    record,
    upstream,
)
from quantmint.assets.graph.made_with import Result, finished, made_with
from quantmint.assets.graph.order import Order
from quantmint.assets.graph.source import source_record
from quantmint.assets.mint import Mint
from quantmint.assets.report.graph import fp16_entry, fp16_metadata
from quantmint.assets.verdict import Verdict
from quantmint.errors import IntegrityError
from quantmint.native.build import Bundle
from quantmint.registry import gguf


def fp16_asset(line: Line) -> dg.AssetsDefinition:
    """Return the asset that converts a model's source to FP16 and checks the conversion."""
    recipe, kernel = line.recipe, line.kernel
    key = line.key("fp16_gguf")
    gates = recipe.gates
    made_of = made_with(
        "fp16", **converter_identity(), title=recipe.title,
        gates={"max_source_nmse": gates.max_source_nmse, "min_source_top1": gates.min_source_top1},
    )  # fmt: skip

    @dg.asset(
        key=key,
        deps=[line.key("source_weights"), kernel_key(kernel)],
        group_name=line.group,
        description=f"{recipe.title} as a 16-bit GGUF file: what every variant is struck from.",
        code_version=made_of.version,
        metadata=made_of.metadata,
        check_specs=[
            dg.AssetCheckSpec(name, asset=key, blocking=True, description=said)
            for name, said in CHECKS.items()
        ],
        kinds={"gguf"},
        owners=OWNERS,
        pool="cpu",
    )
    def fp16_gguf(context: dg.AssetExecutionContext, order: Order) -> Result:
        with explained():
            mint = order.mint(context)
            bundle = bundle_of(mint, kernel)
            source = source_record(context, line, mint)
            made = make_fp16(mint, recipe, source, bundle)
            verdicts = check_conversion(mint, recipe, source, made, bundle)
            for verdict in verdicts:
                mint.report(f"{recipe.model}: {verdict.check} {_said(verdict)}")
            tracked = record(mint, line, context, fp16_entry(made, verdicts))
        return finished(
            context,
            key,
            made.blob.sha256,
            fp16_metadata(mint.store, made, source) | logs(mint, line) | tracked,
            [check_result(key, verdict) for verdict in verdicts],
        )

    return fp16_gguf


def _said(verdict: Verdict) -> str:
    word = "passed" if verdict.passed else "FAILED" if verdict.refuses else "was not made"
    return f"{word}: {verdict.reason}"


def fp16_record(
    context: dg.AssetExecutionContext, line: Line, mint: Mint, bundle: Bundle
) -> Converted:
    """Return the FP16 file, if its checks passed on exactly these bytes.

    Blocking checks hold back later steps of the same run alone; a run of the variants by
    themselves must not begin with a file that was refused.

    Raises:
        IntegrityError: a check did not pass.
    """
    found = upstream(context, line.key("fp16_gguf"))
    blob = mint.store.find(found["sha256"])
    fp16 = Converted(blob, gguf.read(mint.store.path(blob.sha256)), cached=True)
    source = source_record(context, line, mint)
    verdicts = check_conversion(mint, line.recipe, source, fp16, bundle)
    refused = [f"{v.check}: {v.reason}" for v in verdicts if v.refuses]
    if refused:
        raise IntegrityError(
            f"no variant is struck: the FP16 file is refused: {'; '.join(refused)}",
            mend="mend the source, then build again",
        )
    return fp16
