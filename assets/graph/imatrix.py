"""The importance matrix, where the model file declares one."""

# No postponed annotations here: Dagster reads the type of `context` when an asset is defined.
import dagster as dg

from quantmint.assets.graph.conversion import fp16_record
from quantmint.assets.graph.line import (
    OWNERS,
    Line,
    bundle_of,
    explained,
    kernel_key,
    logs,
    record,
    upstream,
)
from quantmint.assets.graph.made_with import Result, finished, made_with
from quantmint.assets.graph.order import Order
from quantmint.assets.graph.upstream import CALIBRATION, see_in_step
from quantmint.assets.imatrix import calibration_text, make_imatrix
from quantmint.assets.mint import Mint
from quantmint.assets.report.graph import imatrix_entry, imatrix_metadata
from quantmint.assets.sources.text_file import text_digest
from quantmint.assets.upstream import look_at_text, remote_text
from quantmint.registry.store import Blob

LEAF = "imatrix"


def imatrix_assets(line: Line) -> list[dg.AssetsDefinition]:
    """Return the asset of a model's importance matrix, or nothing if it declares none."""
    recipe, kernel = line.recipe, line.kernel
    if recipe.imatrix is None:
        return []
    key = line.key(LEAF)
    on_hub = remote_text(recipe)
    made_of = made_with(
        LEAF, imatrix=recipe.imatrix.model_dump(mode="json"),
        text_sha256=text_digest(recipe.imatrix.text, line.base, "calibration"),
        gpu_layers=recipe.assay.gpu_layers,
    )  # fmt: skip

    @dg.asset(
        key=key,
        deps=[
            line.key("fp16_gguf"),
            *([line.key(CALIBRATION)] if on_hub else []),
            kernel_key(kernel),
        ],
        group_name=line.group,
        description=f"`{recipe.imatrix_name}`: how much each column of {recipe.title}'s weights "
        "matters on the calibration text.",
        code_version=made_of.version,
        metadata=made_of.metadata,
        kinds={"gguf", "imatrix"},
        owners=OWNERS,
        pool="cpu",
    )
    def imatrix(context: dg.AssetExecutionContext, order: Order) -> Result:
        with explained():
            mint = order.mint(context)
            bundle = bundle_of(mint, kernel)
            fp16 = fp16_record(context, line, mint, bundle)
            if on_hub is not None:
                see_in_step(context, line.key(CALIBRATION), look_at_text(on_hub))
            text = calibration_text(mint, recipe, line.base)
            made = make_imatrix(mint, recipe, fp16, bundle, text)
            path = mint.home.models / recipe.model / recipe.imatrix_name
            mint.store.link(made.blob, path)
            tracked = record(mint, line, context, imatrix_entry(made))
        shown = imatrix_metadata(made, path) | logs(mint, line) | tracked
        return finished(context, key, made.blob.sha256, shown)

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
