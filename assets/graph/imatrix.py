"""The importance matrix, where the model file declares one."""

# No postponed annotations here: Dagster reads the type of `context` when an asset is defined.
import dagster as dg

from quantmint.assets.graph.conversion import fp16_record
from quantmint.assets.graph.line import (
    OWNERS,
    Line,
    Result,
    bundle_of,
    explained,
    kernel_key,
    logs,
    record,
    reporter,
    upstream,
    version,
)
from quantmint.assets.imatrix import calibration_text, make_imatrix
from quantmint.assets.mint import Mint, open_mint
from quantmint.assets.report.graph import imatrix_entry, imatrix_metadata
from quantmint.registry.store import Blob

LEAF = "imatrix"


def imatrix_assets(line: Line) -> list[dg.AssetsDefinition]:
    """Return the asset of a model's importance matrix, or nothing if it declares none."""
    recipe, kernel = line.recipe, line.kernel
    if recipe.imatrix is None:
        return []

    @dg.asset(
        key=line.key(LEAF),
        deps=[line.key("fp16_gguf"), kernel_key(kernel)],
        group_name=line.group,
        description=f"`{recipe.imatrix_name}`: how much each column of {recipe.title}'s weights "
        "matters on the calibration text.",
        code_version=version("imatrix", recipe.imatrix.model_dump(mode="json")),
        kinds={"gguf", "imatrix"},
        owners=OWNERS,
        pool="cpu",
    )
    def imatrix(context: dg.AssetExecutionContext) -> Result:
        with explained():
            mint = open_mint(reporter(context))
            bundle = bundle_of(mint, kernel)
            fp16 = fp16_record(context, line, mint, bundle)
            text = calibration_text(mint, recipe, line.base)
            made = make_imatrix(mint, recipe, fp16, bundle, text)
            path = mint.home.models / recipe.model / recipe.imatrix_name
            mint.store.link(made.blob, path)
            tracked = record(mint, line, context, imatrix_entry(made))
        return dg.MaterializeResult(
            data_version=dg.DataVersion(made.blob.sha256),
            metadata=imatrix_metadata(made, path) | logs(mint, line) | tracked,
        )

    return [imatrix]


def imatrix_record(context: dg.AssetExecutionContext, line: Line, mint: Mint) -> Blob | None:
    """Return the matrix as it was last made; None if the model file declares none.

    Raises:
        UserError: it was never made.
        IntegrityError: its bytes are gone from the store.
    """
    if line.recipe.imatrix is None:
        return None
    return mint.store.find(str(upstream(context, line.key(LEAF))["sha256"]))
