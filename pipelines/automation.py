"""Jobs, schedules and sensors out of the model files. Nothing starts a run until it is turned on.

| what               | when                  | does                                               |
|--------------------|-----------------------|----------------------------------------------------|
| `refresh_<model>`  | the model file's cron | looks upstream; one run for one change             |
| `retry_looks`      | every minute          | repeats looks that failed, ever more seldom        |
| `refresh_kernels`  | every minute          | rebuilds built kernels that their pin has left     |

`retry_looks` alone is on from the start: it acts for schedules that are on, and for no others.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import InstigatorStatus

from quantmint.assets.graph.line import MODEL_TAG, Line
from quantmint.home import find_home
from quantmint.pipelines.assembly import line_of
from quantmint.pipelines.build import wanted_keys
from quantmint.pipelines.refresh import pending, take_turn
from quantmint.pipelines.spec import Model

TICK_SECONDS: Final = 60


def automation(models: Sequence[Model]) -> dg.Definitions:
    """Return a job for each model, a schedule for each that asks for one, and the sensors."""
    jobs = {model.spec.model: job_of(line_of(model)) for model in models}
    fresh = [model for model in models if model.spec.refresh is not None]
    sensors: list[dg.SensorDefinition] = [refresh_kernels()]
    if fresh:
        sensors.append(retry_looks(fresh, [jobs[model.spec.model] for model in fresh]))
    return dg.Definitions(
        jobs=list(jobs.values()),
        schedules=[schedule_of(model, jobs[model.spec.model]) for model in fresh],
        sensors=sensors,
    )


def job_of(line: Line) -> Any:  # noqa: ANN401 - Dagster exports no name for it
    """Return the job that builds a whole model, up to its report."""
    return dg.define_asset_job(
        f"build_{line.identifier}",
        selection=dg.AssetSelection.assets(*wanted_keys(line, ())),
        description=f"Builds and tests {line.recipe.title}: every variant, up to the report. What "
        "was made of the same inputs before is not made again.",
        tags={MODEL_TAG: line.recipe.model},
    )


def schedule_of(model: Model, job: Any) -> dg.ScheduleDefinition:  # noqa: ANN401
    """Return the schedule that the model file's `refresh:` asks for."""
    refresh = model.spec.refresh
    assert refresh is not None

    @dg.schedule(
        name=schedule_name(model),
        job=job,
        cron_schedule=refresh.cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description=f"Looks at {model.spec.source.shown} and rebuilds exactly what changed.",
    )
    def turn(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return take_turn(context.instance, find_home(), model, now=time.time())

    return turn


def schedule_name(model: Model) -> str:
    """Return the name of a model's schedule."""
    return f"refresh_{line_of(model).identifier}"


def retry_looks(models: Sequence[Model], jobs: Sequence[Any]) -> dg.SensorDefinition:
    """Return the sensor that repeats the failed looks of schedules that are on."""

    @dg.sensor(
        name="retry_looks",
        jobs=list(jobs),
        minimum_interval_seconds=TICK_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Where a schedule that is on could not look upstream, looks again: after a "
        "minute, then after twice as long each time, an hour at most.",
    )
    def retry(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        on, home, now = schedules_on(context.instance), find_home(), time.time()
        due = [
            model
            for model in models
            if schedule_name(model) in on
            and (failed := pending(home, model)) is not None
            and failed.due <= now
        ]
        if not due:
            yield dg.SkipReason("no look is due")
        for model in due:
            answer = take_turn(context.instance, home, model, now=now, by="retry_looks")
            if isinstance(answer, dg.RunRequest):
                yield answer.with_replaced_attrs(job_name=f"build_{line_of(model).identifier}")
            else:
                context.log.info("%s: %s", model.spec.model, answer.skip_message)

    return retry


def schedules_on(instance: dg.DagsterInstance) -> set[str]:
    """Return the names of the schedules that are turned on."""
    states = instance.all_instigator_state(
        instigator_type=InstigatorType.SCHEDULE, instigator_statuses={InstigatorStatus.RUNNING}
    )
    return {state.instigator_name for state in states}


def refresh_kernels() -> dg.SensorDefinition:
    """Return the sensor that rebuilds kernels after a change of llama.cpp, compiler or options."""
    return dg.AutomationConditionSensorDefinition(
        "refresh_kernels",
        target=dg.AssetSelection.groups("kernels"),
        minimum_interval_seconds=TICK_SECONDS,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Rebuilds and compares again the kernels that were built before, when the "
        "llama.cpp pin, the compiler or the matrix changed.",
    )
