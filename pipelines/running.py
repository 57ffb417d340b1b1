"""Running assets in this process, and giving back our own errors instead of Dagster's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import dagster as dg
from dagster._core.errors import DagsterAssetCheckFailedError

from quantmint.assets.graph.order import ORDER, Order
from quantmint.errors import BugError, QuantmintError
from quantmint.pipelines.reaper import process_tag

_SILENT: Final = {"console": {"config": {"log_level": "CRITICAL"}}}


class CheckRefused(Exception):  # noqa: N818 - no error: a gate did its work
    """A blocking check held back what comes after it."""


def run_assets(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    keys: Sequence[dg.AssetKey],
    *,
    force: bool = False,
    ops: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
) -> str:
    """Materialize these assets of the definitions; return the run's id.

    `force` does again what the action cache knows; `ops` is configuration by op.

    Raises:
        CheckRefused: a blocking check failed.
        QuantmintError: what the failing step raised.
    """
    assets = [a for a in defs.assets or [] if isinstance(a, dg.AssetsDefinition | dg.AssetSpec)]
    try:
        result = dg.materialize(
            assets,
            selection=dg.AssetSelection.assets(*keys),
            instance=instance,
            run_config={"loggers": _SILENT, "ops": dict(ops or {})},
            resources={ORDER: Order(force=force)},
            tags={**process_tag(), **(tags or {})},
            raise_on_error=True,
        )
    except DagsterAssetCheckFailedError as error:
        raise CheckRefused(str(error)) from None
    except Exception as error:
        ours = our_error(error)
        if ours is None or ours is error:
            raise
        raise ours from None
    if not result.success:
        raise BugError("the Dagster run failed without saying why")
    return result.run_id


def our_error(error: BaseException | None) -> QuantmintError | None:
    """Find our own error below those that Dagster wrapped around it."""
    seen: set[int] = set()  # errors can name each other in a ring
    while error is not None and id(error) not in seen:
        if isinstance(error, QuantmintError):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None
