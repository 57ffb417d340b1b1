"""What an asset is made with beside its upstream assets, by name: what its code version stands for.

It is written on the asset's page and beside every materialization, so that a later look can say
which argument changed, and from what to what.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from quantmint.files import digest_of

# Dagster recognizes the bare class alone as the annotation of an asset that also has checks.
if TYPE_CHECKING:
    Result = dg.MaterializeResult[Any]
    Made = Result | dg.AssetCheckResult
else:
    Result = dg.MaterializeResult
    Made = dg.MaterializeResult | dg.AssetCheckResult
MADE_WITH: Final = "made_with"
# What a page shows at its top: the result, and where to read on.
FIRST: Final = ("summary", "page", "mlflow_run", "report", "visible_file", "file")
# Raise a stage's number when the stage itself makes something else of the same inputs.
STAGE_VERSIONS: Final = {
    "source": 1, "fp16": 3, "imatrix": 1, "variant": 2, "assay": 3, "report": 1, "kernel": 2,
    "kernel_assay": 1, "release": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class MadeWith:
    """The arguments of one asset, flat: `gates.max_kld` and the like, each a JSON value."""

    parts: Mapping[str, Any]

    @property
    def version(self) -> str:
        """The code version: it changes with any of the parts."""
        return digest_of(dict(self.parts))[:16]

    @property
    def metadata(self) -> dict[str, Any]:
        """The parts as the asset's page shows them."""
        return {MADE_WITH: dg.MetadataValue.json(dict(self.parts))}


def made_with(stage: str, **parts: object) -> MadeWith:
    """Return what an asset of that stage is made with; mappings are flattened with dots."""
    flat: dict[str, Any] = {"stage": f"{stage} {STAGE_VERSIONS[stage]}"}
    for name, value in parts.items():
        _flatten(name, json.loads(json.dumps(value, default=list)), flat)
    return MadeWith(flat)


def _flatten(name: str, value: Any, into: dict[str, Any]) -> None:  # noqa: ANN401
    if isinstance(value, dict):
        for key, inner in value.items():
            _flatten(f"{name}.{key}", inner, into)
    else:
        into[name] = value


def meant(context: dg.AssetExecutionContext) -> frozenset[dg.AssetKey]:
    """Return the assets that a step is about: selected, or with a selected check."""
    checked = {key.asset_key for key in context.selected_asset_check_keys}
    return frozenset({*context.selected_asset_keys, *checked})


def results(
    context: dg.AssetExecutionContext,
    key: dg.AssetKey,
    sha256: str,
    metadata: Mapping[str, Any],
    checks: Sequence[dg.AssetCheckResult],
) -> Iterator[Made]:
    """Yield an asset's result with its checks; the checks alone where they alone were asked for."""
    if key in context.selected_asset_keys:
        yield finished(context, key, sha256, metadata, checks)
        return
    for check in checks:
        assert check.check_name is not None
        if dg.AssetCheckKey(key, check.check_name) in context.selected_asset_check_keys:
            yield check


def finished(
    context: dg.AssetExecutionContext,
    key: dg.AssetKey,
    sha256: str,
    metadata: Mapping[str, Any],
    checks: Sequence[dg.AssetCheckResult] = (),
) -> Result:
    """Return an asset's result: its bytes' digest is the data version.

    What it was made with stands beside it, as its definition says.
    """
    declared = context.assets_def.specs_by_key[key].metadata
    first = {name: metadata[name] for name in FIRST if name in metadata}
    return dg.MaterializeResult(
        asset_key=key,
        data_version=dg.DataVersion(sha256),
        metadata={**first, **metadata, MADE_WITH: declared[MADE_WITH]},
        check_results=list(checks),
    )
