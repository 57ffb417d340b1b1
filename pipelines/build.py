"""Building a model from the command line: ask what is out of date, then run exactly that."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import dagster as dg

from quantmint.assets.assay import record as assay_record
from quantmint.assets.conversion.checks import CHECKS
from quantmint.assets.graph.assay import REPORT, needs_reference
from quantmint.assets.graph.line import BUILD_TAG, MODEL_TAG, Line, kernel_key
from quantmint.assets.graph.upstream import look_at, tell
from quantmint.assets.regression import accept_records
from quantmint.errors import UserError, nearest
from quantmint.home import Home, find_home
from quantmint.native.kernels import reference_kernel
from quantmint.pipelines.assembly import build_definitions, line_of
from quantmint.pipelines.busy import building
from quantmint.pipelines.instance import open_instance
from quantmint.pipelines.reaper import reap
from quantmint.pipelines.running import CheckRefused, run_assets
from quantmint.pipelines.spec import Model
from quantmint.pipelines.stale import Last, Reason, last_of, stale
from quantmint.registry.store import Store

# One for each stage, and some for lost bytes that came back different.
MOST_PASSES = 12


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the command line asks of a build.

    Only `variants` (all of the model file if empty); `refresh` looks at the Hub again; `force`
    does all work again; with `accept`, what was measured last is what the regression watch
    compares with.
    """

    variants: tuple[str, ...] = ()
    refresh: bool = False
    force: bool = False
    accept: bool = False


WHOLE: Final = Wish()


def build_model(model: Model, wish: Wish = WHOLE) -> Built:
    """Bring the model's assets up to date, through Dagster, in this process.

    Assets that are out of date for certain are made first; what is made of them is asked again
    after that, so that nothing is made anew of bytes that came out the same.

    Raises:
        UserError: a variant is not in the model file.
        QuantmintError: whatever a stage raised.
    """
    home = find_home()
    store = Store(home.store).open()
    line = line_of(model)
    wanted = wanted_keys(line, wish.variants)
    made: dict[str, str] = {}
    with building(home, line.recipe.model), open_instance(home) as instance:
        reap(instance)
        defs = build_definitions([model])
        tell(instance, look_at(line, remote=wish.refresh))
        asked = _asked(instance, store, line, wanted, wish)
        tags = {MODEL_TAG: line.recipe.model}
        refused = ""
        for _ in range(MOST_PASSES):
            late = {k: r for k, r in stale(defs, instance, store, {}).items() if k in wanted}
            now = frontier(defs, {**late, **asked})
            # What a gate withholds ends the build; that it does stands in the report.
            if not now or (refused and set(late) != {line.key(REPORT)}):
                break
            asked = {}
            made |= {key.to_user_string(): reason.text for key, reason in now.items()}
            try:
                run = run_assets(defs, instance, list(now), force=wish.force, tags=tags)
            except CheckRefused as error:  # the checks' own reasons are in the table of variants
                refused = _fp16_said(instance, line) or str(error)
                continue
            tags.setdefault(BUILD_TAG, run)
        rows = _rows(instance, store, line, wanted)
        if not refused:
            restore_links(home, store, line, rows)
        return Built(made, rows, refused)


def frontier(defs: dg.Definitions, late: Mapping[dg.AssetKey, Reason]) -> dict[dg.AssetKey, Reason]:
    """Return what is made next: what is out of date for certain, and does not wait for more.

    Whatever is made of an asset that only perhaps changes waits until that is known.
    """
    graph = defs.resolve_asset_graph()
    chosen: dict[dg.AssetKey, Reason] = {}
    for key in graph.toposorted_asset_keys:
        waits = any(p in late and p not in chosen for p in graph.get(key).parent_keys)
        if key in late and late[key].certain and not waits:
            chosen[key] = late[key]
    return chosen


def _asked(
    instance: dg.DagsterInstance,
    store: Store,
    line: Line,
    wanted: set[dg.AssetKey],
    wish: Wish,
) -> dict[dg.AssetKey, Reason]:
    """Return what is made because a person asked for it."""
    own = [key for key in wanted if key.path[0] == line.recipe.model]
    asked = {key: Reason("asked for") for key in own} if wish.force else {}
    return asked | (_accept_last(instance, store, line, wanted) if wish.accept else {})


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


def _rows(
    instance: dg.DagsterInstance, store: Store, line: Line, wanted: set[dg.AssetKey]
) -> tuple[VariantRow, ...]:
    keys = [key for key in wanted if key.path[0] == line.recipe.model]
    last = last_of(instance, keys)
    rows = []
    for variant in line.recipe.variants:
        made, measured = last.get(line.key(variant)), last.get(line.on(variant, line.kernel))
        if made is not None and measured is not None:
            metadata = {**measured.metadata, **made.metadata}
            rows.append(VariantRow(variant, metadata, tuple(_failed(store, line, variant, last))))
    return tuple(rows)


def _failed(
    store: Store, line: Line, variant: str, last: Mapping[dg.AssetKey, Last]
) -> Iterator[str]:
    """Yield `check: reason` of every check that the bytes at hand did not pass."""
    bytes_at_hand = str(last[line.key(variant)].metadata["sha256"])
    for kernel in line.kernels:
        made = last.get(line.on(variant, kernel))
        if made is None:
            continue  # it was not asked for, or something before it failed
        on = "" if kernel.name == line.kernel.name else f" on {kernel.name}"
        record = assay_record.load(store, store.find(str(made.metadata["sha256"])))
        if record.digests["gguf"] != bytes_at_hand:
            yield f"untested{on}: it was made anew, and the assay did not get that far"
        else:
            yield from (f"{v.check}{on}: {v.reason}" for v in record.verdicts if v.refuses)


def _fp16_said(instance: dg.DagsterInstance, line: Line) -> str:
    """Return why the FP16 file was refused, or an empty string if it was not."""
    said = []
    for name in CHECKS:
        key = dg.AssetCheckKey(line.key("fp16_gguf"), name)
        found = instance.get_latest_asset_check_evaluation_record(key)
        event = found.event.dagster_event if found is not None and found.event is not None else None
        if event is None or event.event_type is not dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            continue  # it never ran, or the run was killed before
        checked = event.asset_check_evaluation_data
        if not checked.passed and checked.severity is dg.AssetCheckSeverity.ERROR:
            said.append(f"{name}: {checked.description}")  # one that could not be made warns
    return "; ".join(said)
