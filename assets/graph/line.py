"""What every asset of the graph shares: keys, groups, versions, reporting, lookups."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import dagster as dg

from quantmint.assets import tracking
from quantmint.assets.mint import Mint
from quantmint.assets.recipe import Recipe
from quantmint.assets.verdict import Verdict
from quantmint.errors import QuantmintError, UserError
from quantmint.native.build import Bundle, build_kernel
from quantmint.native.kernels import (
    Kernel,
    choose,
    cpu_flags,
    host_kernel,
    kernel_named,
    machine_name,
    runnable,
    runs_here,
    system_name,
)
from quantmint.orphans import end_with_parent, is_step

OWNERS: Final = ["team:mint"]
# For steps that need a server of others. Waits of about 20, 60, 140, 300 seconds.
PATIENCE: Final = dg.RetryPolicy(
    max_retries=4, delay=20, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
)
# What Dagster keeps beside a materialization: the versions of its code, its bytes, each input.
CODE_TAG: Final = "dagster/code_version"
DATA_TAG: Final = "dagster/data_version"
INPUT_TAG: Final = "dagster/input_data_version/"
# Runs that one build is made of carry the first one's id under this tag.
BUILD_TAG: Final = "quantmint/build"
# The model that a run is about.
MODEL_TAG: Final = "quantmint/model"


@dataclass(frozen=True, slots=True)
class Line:
    """One model's line: its recipe, and the folder that its relative paths start from.

    `kernels` are those that the variants are tested on; quality is measured on the last one.
    """

    recipe: Recipe
    base: Path
    kernels: tuple[Kernel, ...]

    @property
    def identifier(self) -> str:
        """The model's name as Dagster takes it for groups, jobs and steps."""
        return self.recipe.model.replace("-", "_").replace(".", "_")

    @property
    def group(self) -> str:
        """The group in Dagster's graph."""
        return f"models/{self.identifier}"

    def key(self, leaf: str) -> dg.AssetKey:
        """Return the asset key of one artifact of this model."""
        return dg.AssetKey([self.recipe.model, leaf])

    def on(self, variant: str, kernel: Kernel) -> dg.AssetKey:
        """Return the asset key of a variant's assay on a kernel."""
        return self.key(f"{variant}_on_{kernel.name}")

    @property
    def kernel(self) -> Kernel:
        """The kernel that quality is measured on."""
        return self.kernels[-1]


def kernels_of(recipe: Recipe) -> tuple[Kernel, ...]:
    """Return the kernels that a model's variants are tested on here.

    Named ones that do not run here are left out, unless none runs: then the graph still loads,
    and a run says what is missing.
    """
    wanted = recipe.assay.kernels
    if wanted == "best":
        return (host_kernel(),)
    if wanted == "host":
        return runnable(machine_name(), cpu_flags(), system_name())
    named = [kernel_named(name) for name in wanted]
    here = [kernel for kernel in named if runs_here(kernel)]
    return tuple(here or named)


def kernel_key(kernel: Kernel) -> dg.AssetKey:
    """Return the asset key of a kernel's bundle."""
    return dg.AssetKey(["kernels", kernel.name])


@contextmanager
def explained() -> Iterator[None]:
    """Show our errors on the run page as they are; try again, as a service, what time may mend.

    At a keyboard nothing is tried again: the message is there at once. A step of a killed run
    ends with it.
    """
    end_with_parent()
    try:
        yield
    except QuantmintError as error:
        again = error.retryable and is_step()
        raise dg.Failure(description=str(error), allow_retries=again) from error
    except (dg.Failure, dg.RetryRequested):
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        raise dg.Failure(description=said, allow_retries=False) from error


def reporter(context: dg.AssetExecutionContext) -> Callable[[str], None]:
    """Report to the run page, and to whoever listens in this process (the command line does)."""

    def report(text: str) -> None:
        context.log.info(text)
        logging.getLogger("quantmint").info("%s", text)

    return report


def bundle_of(mint: Mint, kernel: Kernel) -> Bundle:
    """Return the kernel's bundle, built if need be.

    Raises:
        UserError: this machine can't run it.
        BuildError, SourceError: it can't be built.
    """
    choose([kernel.name])
    return build_kernel(mint.home, mint.tools, kernel, mint.report)


def record(
    mint: Mint, line: Line, context: dg.AssetExecutionContext, entry: tracking.Entry
) -> dict[str, Any]:
    """Log to the build's MLflow run; return the link to it as metadata."""
    tracked = tracking.record(mint.home, line.recipe.model, build_of(context), entry)
    return {"mlflow_run": dg.MetadataValue.url(tracked.url)} if tracked else {}


def build_of(context: dg.AssetExecutionContext) -> str:
    """Return the id of the build that a run is part of: its first run's."""
    return context.run.tags.get(BUILD_TAG, context.run.run_id)


def logs(mint: Mint, line: Line) -> dict[str, Any]:
    """Return where the whole output of every tool of this model's line lies."""
    return {"logs": dg.MetadataValue.path(str(mint.home.logs / line.recipe.model))}


def check_result(key: dg.AssetKey, verdict: Verdict) -> dg.AssetCheckResult:
    """Return a verdict as Dagster shows it; a check that could not be made warns."""
    error, warn = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=verdict.check,
        passed=verdict.passed,
        severity=error if verdict.made else warn,
        description=verdict.reason,
        metadata={name: _plain(value) for name, value in verdict.facts.items()},
    )


def _plain(value: object) -> Any:  # noqa: ANN401
    if isinstance(value, float):
        return float(f"{value:.6g}")  # the page shows every digit that there is
    return value if isinstance(value, str | int | bool) else str(value)


def last_metadata(instance: dg.DagsterInstance, key: dg.AssetKey) -> Mapping[str, Any] | None:
    """Return the values of an asset's latest materialization, or None if there is none."""
    event = instance.get_latest_materialization_event(key)
    if event is None or event.asset_materialization is None:
        return None
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


def upstream(context: dg.AssetExecutionContext, key: dg.AssetKey) -> Mapping[str, Any]:
    """Return the metadata of an asset's latest materialization.

    Raises:
        UserError: it was never materialized.
    """
    found = last_metadata(context.instance, key)
    if found is None:
        raise UserError(
            f"{key.to_user_string()} was never materialized",
            mend=f"materialize it first, or run: quantmint build {key.path[0]}",
        )
    return found
