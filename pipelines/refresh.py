"""Scheduled refreshes: look at a model's upstreams, and start one run for one change.

The turns themselves are plain functions over an instance; schedules and sensors only call them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import dagster as dg

from quantmint.assets.graph.line import DATA_TAG, MODEL_TAG, Line
from quantmint.assets.graph.upstream import look_at, tell
from quantmint.errors import QuantmintError, SourceError, UserError
from quantmint.files import alone, digest_of, write_whole
from quantmint.home import Home
from quantmint.pipelines.assembly import build_definitions, line_of
from quantmint.pipelines.build import wanted_keys
from quantmint.pipelines.busy import is_building
from quantmint.pipelines.reaper import UNFINISHED
from quantmint.pipelines.reasons import some
from quantmint.pipelines.spec import Model, load_model
from quantmint.pipelines.stale import Reason, last_of, stale
from quantmint.registry.store import Store

CHANGE_TAG: Final = "quantmint/change"
ASKED_TAG: Final = "quantmint/asked"
# Seconds until a failed look is tried again: doubled each time, an hour at most.
FIRST_WAIT: Final = 60.0
LONGEST_WAIT: Final = 3600.0
# How long a run that was asked for may take until it is recorded.
CLAIM_SECONDS: Final = 120.0
WAITING: Final = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED]


@dataclass(frozen=True, slots=True)
class Failed:
    """Looks that failed one after the other, and when the next is due (seconds since 1970)."""

    times: int
    due: float


def take_turn(
    instance: dg.DagsterInstance, home: Home, model: Model, *, now: float, by: str = "schedule"
) -> dg.RunRequest | dg.SkipReason:
    """Look at a model's upstreams; ask for a run if anything is out of date.

    A run is asked for once for each change of upstreams and arguments, whatever becomes of it;
    a state that comes back is another change, and so are bytes that were lost since. While a run
    of the model is unfinished, or a command builds it, nothing is asked for; nor where another
    asker (`by`) asked a moment ago, and its run is not recorded yet.
    """
    line = line_of(model)
    why = _not_now(instance, home, model, line)
    if why is not None:
        return dg.SkipReason(why)
    try:
        news = tell(instance, look_at(line, remote=True))
    except SourceError as error:
        return dg.SkipReason(put_off(home, model, error, now))
    forget(home, model)
    defs, wanted = build_definitions([model]), wanted_keys(line, ())
    every = stale(defs, instance, Store(home.store), {})
    late = {key: reason for key, reason in every.items() if key in wanted}
    if not late:
        seen = "nothing that counts changed" if news else "nothing changed"
        return dg.SkipReason(f"{seen}: every asset of {model.spec.model} is up to date")
    answer = _ask(instance, model.spec.model, _state(defs, instance, wanted), late)
    if isinstance(answer, dg.RunRequest) and (other := _claimed(home, model, by, now)) is not None:
        return dg.SkipReason(f"{other} has asked for a run of {model.spec.model} this minute")
    return answer


def _not_now(instance: dg.DagsterInstance, home: Home, model: Model, line: Line) -> str | None:
    """Return why nothing is looked at now, or None."""
    name = model.spec.model
    if _edited(model):
        return f"{model.file.name} was edited: reload the definitions first"
    busy = unfinished_run(instance, line)
    if busy is not None:
        return f"run {busy[:8]} of {name} is not finished"
    return f"a command builds {name}" if is_building(home, name) else None


def _ask(
    instance: dg.DagsterInstance, model: str, change: str, late: Mapping[dg.AssetKey, Reason]
) -> dg.RunRequest | dg.SkipReason:
    """Ask for a run of what is late, unless one was started for this very change."""
    asked = digest_of(sorted(key.to_user_string() for key in late))[:32]
    run = _last_refresh(instance, model)
    known = run is not None and run.tags[CHANGE_TAG] == change
    # What is late after a run that succeeded was lost since, unless it is all that it was to make.
    if run is not None and known and (not run.is_success or run.tags.get(ASKED_TAG) == asked):
        return dg.SkipReason(
            f"run {run.run_id[:8]} was started for this change and is {run.status.value}: "
            f"{_said(late)}; re-execute it, or: quantmint build {model}"
        )
    after = run.run_id[:8] if run is not None else "first"
    return dg.RunRequest(
        run_key=f"{model}-{change}-{after}",
        asset_selection=list(late),
        tags={MODEL_TAG: model, CHANGE_TAG: change, ASKED_TAG: asked},
    )


def _claimed(home: Home, model: Model, by: str, now: float) -> str | None:
    """Claim the next run for `by`; return who else did so in the last two minutes, if anybody.

    The schedule and the sensor that repeats its looks tick in threads of their own, and a run is
    recorded seconds after it was asked for.
    """
    path = _path(home, model).with_suffix(".claim")
    with alone(path.with_suffix(".lock"), lambda: None):
        try:
            found = json.loads(path.read_bytes())
            other, since = str(found["by"]), now - float(found["at"])
        except (OSError, ValueError, LookupError, TypeError):
            other, since = by, 0.0
        if other != by and 0 <= since < CLAIM_SECONDS:
            return other
        write_whole(path, json.dumps({"by": by, "at": now}).encode())
    return None


def _last_refresh(instance: dg.DagsterInstance, model: str) -> dg.DagsterRun | None:
    """Return the newest run that was started for a change of the model."""
    runs = instance.get_runs(filters=dg.RunsFilter(tags={MODEL_TAG: model}))
    return next((run for run in runs if CHANGE_TAG in run.tags), None)


def unfinished_run(instance: dg.DagsterInstance, line: Line) -> str | None:
    """Return a run that still makes assets of this model, or None."""
    model = line.recipe.model
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=[*WAITING, *UNFINISHED])):
        keys = run.asset_selection or frozenset()
        if run.tags.get(MODEL_TAG) == model or any(key.path[0] == model for key in keys):
            return run.run_id
    return None


def put_off(home: Home, model: Model, error: QuantmintError, now: float) -> str:
    """Remember that a look failed, and return when the next one is due, for people."""
    failed = pending(home, model)
    times = failed.times + 1 if failed is not None else 1
    due = now + min(LONGEST_WAIT, FIRST_WAIT * 2 ** (times - 1))
    path = _path(home, model)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(asdict(Failed(times, due))).encode())
    clock = datetime.fromtimestamp(due, UTC).strftime("%H:%M:%S")
    return f"look {times} failed, the next is due at {clock} UTC: {error.what}"


def pending(home: Home, model: Model) -> Failed | None:
    """Return the failed looks that are to be repeated, or None."""
    try:
        found = json.loads(_path(home, model).read_bytes())
        return Failed(int(found["times"]), float(found["due"]))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def forget(home: Home, model: Model) -> None:
    """Forget failed looks."""
    _path(home, model).unlink(missing_ok=True)


def _path(home: Home, model: Model) -> Path:
    return home.work / "refresh" / f"{model.spec.model}.json"


def _edited(model: Model) -> bool:
    """Return whether the file on disk is not what the definitions were made of."""
    try:
        return load_model(model.file) != model
    except UserError:
        return True


def _state(
    defs: dg.Definitions, instance: dg.DagsterInstance, wanted: AbstractSet[dg.AssetKey]
) -> str:
    """Return a digest of all that a model's assets are made of: upstreams and arguments."""
    graph = defs.resolve_asset_graph()
    outside = {p for key in wanted for p in graph.get(key).parent_keys} - wanted
    seen = last_of(instance, sorted(outside))
    versions = {key.to_user_string(): last.tags.get(DATA_TAG) for key, last in seen.items()}
    arguments = {key.to_user_string(): graph.get(key).code_version for key in wanted}
    return digest_of([versions, arguments])[:32]


def _said(late: Mapping[dg.AssetKey, Reason]) -> str:
    rows = [f"{k.to_user_string()} ({r.text})" for k, r in late.items() if r.certain]
    return some(rows, ", ")
