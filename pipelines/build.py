"""Building a model from the command line: ask what is out of date, then run exactly that."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterAssetCheckFailedError

from quantmint.assets.conversion.checks import CHECKS
from quantmint.assets.graph.assay import REPORT, checks_on, needs_reference
from quantmint.assets.graph.line import Line, kernel_key
from quantmint.assets.regression import accept_records
from quantmint.errors import BugError, QuantmintError, UserError, nearest
from quantmint.home import Home, find_home
from quantmint.native.kernels import reference_kernel
from quantmint.pipelines.definitions import build_definitions
from quantmint.pipelines.instance import open_instance
from quantmint.pipelines.reaper import process_tag, reap
from quantmint.pipelines.spec import Model
from quantmint.pipelines.stale import Last, Reason, last_of, stale
from quantmint.registry.store import Store

# A second pass is needed only when lost bytes came back different.
MOST_PASSES = 3
_SILENT = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True, slots=True)
class VariantRow:
    """One line of the final table."""

    variant: str
    metadata: Mapping[str, Any]
    failed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Built:
    """What a build did: why each asset was made anew, and every variant's measurements."""

    made: Mapping[str, str]
    rows: tuple[VariantRow, ...]
    refused: str


def build_model(
    model: Model, *, variants: Sequence[str] = (), refresh: bool = False, accept: bool = False
) -> Built:
    """Bring the model's assets up to date, through Dagster, in this process.

    Args:
        model: the model file.
        variants: only these; all of the model file by default.
        refresh: look at the upstream again even if nothing here is out of date.
        accept: let what was measured last be the values that the regression watch compares with.

    Raises:
        UserError: a variant is not in the model file.
        QuantmintError: whatever a stage raised.
    """
    home = find_home()
    store = Store(home.store).open()
    line = Line(model.spec, model.base)
    wanted = wanted_keys(line, variants)
    made: dict[str, str] = {}
    with open_instance(home) as instance:
        reap(instance)
        defs = build_definitions([model])
        for _ in range(MOST_PASSES):
            todo = {k: r for k, r in stale(defs, instance, store, model).items() if k in wanted}
            if refresh:
                todo = {line.key("source_weights"): Reason("asked for"), **todo}
                refresh = False
            if accept:
                todo |= _accept_last(instance, store, line, wanted)
                accept = False
            if not todo:
                break
            made |= {key.to_user_string(): reason.text for key, reason in todo.items()}
            refused = _materialize(defs, instance, list(todo))
            if refused:
                return Built(
                    made, _rows(instance, line, wanted), _fp16_said(instance, line) or refused
                )
        rows = _rows(instance, line, wanted)
        restore_links(home, store, line, rows)
        return Built(made, rows, "")


def _accept_last(
    instance: dg.DagsterInstance, store: Store, line: Line, wanted: set[dg.AssetKey]
) -> dict[dg.AssetKey, Reason]:
    """Accept the last measurements; return the assays that are to be judged again by them."""
    keys = [line.on(v, k) for v in line.recipe.variants for k in line.kernels]
    last = last_of(instance, [key for key in keys if key in wanted])
    accept_records(
        store, line.recipe.model, [str(made.metadata["sha256"]) for made in last.values()]
    )
    return {key: Reason("its measurements were accepted") for key in last}


def wanted_keys(line: Line, variants: Sequence[str]) -> set[dg.AssetKey]:
    """Return the assets that a build of these variants is about.

    Raises:
        UserError: a variant is not in the model file.
    """
    recipe = line.recipe
    for name in variants:
        if name not in recipe.variants:
            raise UserError(
                f"{recipe.model} has no variant {name!r}{nearest(name, recipe.variants)}",
                mend=f"add it to `variants:` of {recipe.model}, or leave it out",
            )
    chosen = tuple(variants or recipe.variants)
    kernels = [*line.kernels, *([reference_kernel()] if needs_reference(line) else [])]
    return {
        *(kernel_key(kernel) for kernel in kernels),
        *(line.key(leaf) for leaf in ("source_weights", "fp16_gguf", *chosen)),
        *([line.key("imatrix")] if recipe.imatrix else []),
        *(line.on(variant, kernel) for variant in chosen for kernel in line.kernels),
        line.key(REPORT),
    }


def restore_links(home: Home, store: Store, line: Line, rows: Sequence[VariantRow]) -> None:
    """Let the models folder hold exactly the variants that passed."""
    for row in rows:
        path = home.models / line.recipe.model / line.recipe.file_name(row.variant)
        if row.failed:
            path.unlink(missing_ok=True)
            continue
        blob = store.find(str(row.metadata["sha256"]))
        if not path.is_file() or path.stat().st_size != blob.size:
            logging.getLogger("quantmint").info("%s: put back from the store", path.name)
            store.link(blob, path)


def _materialize(
    defs: dg.Definitions, instance: dg.DagsterInstance, keys: list[dg.AssetKey]
) -> str:
    """Run the assets; return why a blocking check held back the rest, or an empty string.

    Raises:
        QuantmintError: what the failing step raised.
    """
    assets = [a for a in defs.assets or [] if isinstance(a, dg.AssetsDefinition | dg.AssetSpec)]
    try:
        result = dg.materialize(
            assets,
            selection=dg.AssetSelection.assets(*keys),
            instance=instance,
            run_config=_SILENT,
            tags=process_tag(),
            raise_on_error=True,
        )
    except QuantmintError:
        raise
    except DagsterAssetCheckFailedError as error:
        return str(error)  # the checks' own reasons are in the table of variants
    except Exception as error:
        ours = our_error(error)
        if ours is None:
            raise
        raise ours from None
    if not result.success:
        raise BugError("the Dagster run failed without saying why")
    return ""


def our_error(error: BaseException | None) -> QuantmintError | None:
    """Find our own error below those that Dagster wrapped around it."""
    seen: set[int] = set()  # errors can name each other in a ring
    while error is not None and id(error) not in seen:
        if isinstance(error, QuantmintError):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def _rows(
    instance: dg.DagsterInstance, line: Line, wanted: set[dg.AssetKey]
) -> tuple[VariantRow, ...]:
    keys = [key for key in wanted if key.path[0] == line.recipe.model]
    last: Mapping[dg.AssetKey, Last] = last_of(instance, keys)
    rows = []
    for variant in line.recipe.variants:
        made, measured = last.get(line.key(variant)), last.get(line.on(variant, line.kernel))
        if made is not None and measured is not None:
            metadata = {**measured.metadata, **made.metadata}
            rows.append(VariantRow(variant, metadata, _failed(instance, line, variant)))
    return tuple(rows)


def _failed(instance: dg.DagsterInstance, line: Line, variant: str) -> tuple[str, ...]:
    """Return `check: reason` of every check that the latest bytes of a variant did not pass."""
    said = []
    for kernel in line.kernels:
        for name in checks_on(line, kernel):
            found = latest_check(instance, line.on(variant, kernel), name)
            if found is not None and _refuses(found):
                on = "" if kernel.name == line.kernel.name else f" on {kernel.name}"
                said.append(f"{name}{on}: {found.description}")
    return tuple(said)


def _fp16_said(instance: dg.DagsterInstance, line: Line) -> str:
    """Return why the FP16 file was refused, or an empty string if it was not."""
    said = []
    for name in CHECKS:
        found = latest_check(instance, line.key("fp16_gguf"), name)
        if found is not None and _refuses(found):
            said.append(f"{name}: {found.description}")
    return "; ".join(said)


def _refuses(found: dg.AssetCheckEvaluation) -> bool:
    """A check that could not be made warns."""
    return not found.passed and found.severity is dg.AssetCheckSeverity.ERROR


def latest_check(
    instance: dg.DagsterInstance, key: dg.AssetKey, name: str
) -> dg.AssetCheckEvaluation | None:
    """Return what a check said last, or None if it never ran."""
    record = instance.get_latest_asset_check_evaluation_record(dg.AssetCheckKey(key, name))
    event = record.event.dagster_event if record is not None and record.event is not None else None
    return event.asset_check_evaluation_data if event is not None else None
