"""MLflow: one run per build and model, with digests, metrics and tools; never a model's bytes."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from quantmint.home import Home

MLFLOW_PORT: Final = 5000
DAGSTER_PORT: Final = 3000
OFF: Final = "off"


@dataclass(frozen=True, slots=True)
class Tracked:
    """One MLflow run, and where a browser finds it while `quantmint ui` is up."""

    run_id: str
    experiment_id: str

    @property
    def url(self) -> str:
        """The address of the run's page."""
        root = os.environ.get("QUANTMINT_MLFLOW_URL", f"http://127.0.0.1:{MLFLOW_PORT}")
        return f"{root}/#/experiments/{self.experiment_id}/runs/{self.run_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What one step adds to its build's run."""

    params: Mapping[str, object]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


def tracking_uri(home: Home) -> str:
    """Return `MLFLOW_TRACKING_URI`, or the SQLite database in the home folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home.mlflow / 'mlflow.db'}"


def dagster_run_url(run_id: str) -> str:
    """Return the address of a Dagster run's page."""
    root = os.environ.get("QUANTMINT_DAGSTER_URL", f"http://127.0.0.1:{DAGSTER_PORT}")
    return f"{root}/runs/{run_id}"


def record(home: Home, model: str, dagster_run: str, entry: Entry) -> Tracked | None:
    """Add to the MLflow run of this build, begun on first use; None when tracking is off.

    A build is one Dagster run. `QUANTMINT_TRACKING=off` switches tracking off.
    """
    if os.environ.get("QUANTMINT_TRACKING") == OFF:
        return None
    client = _client(home)
    experiment = _experiment(client, home, model)
    run_id = _run(client, experiment, model, dagster_run)
    for key, value in entry.params.items():
        client.log_param(run_id, key, value)
    for key, number in entry.metrics.items():
        client.log_metric(run_id, key, number)
    for key, text in entry.tags.items():
        client.set_tag(run_id, key, text)
    client.set_terminated(run_id, "FINISHED")
    return Tracked(run_id, experiment)


def _client(home: Home) -> Any:  # noqa: ANN401
    home.mlflow.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SQLAlchemy's deprecations inside MLflow are not ours
        from mlflow import MlflowClient

        # Making the database's tables is no news for whoever builds a model.
        for name in ("mlflow", "mlflow.store.db.utils", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        return MlflowClient(tracking_uri=tracking_uri(home))


def _experiment(client: Any, home: Home, model: str) -> str:  # noqa: ANN401
    found = client.get_experiment_by_name(model)
    if found is None:
        try:
            location = (home.mlflow / "artifacts").as_uri()
            return str(client.create_experiment(model, artifact_location=location))
        except Exception:  # another step of the same build may have made it just now
            found = client.get_experiment_by_name(model)
            if found is None:
                raise
    return str(found.experiment_id)


def _run(client: Any, experiment: str, model: str, dagster_run: str) -> str:  # noqa: ANN401
    found = client.search_runs(
        [experiment], filter_string=f"tags.`dagster.run_id` = '{dagster_run}'", max_results=1
    )
    if found:
        return str(found[0].info.run_id)
    made = client.create_run(
        experiment,
        run_name=f"{model}@{dagster_run[:8]}",
        tags={
            "dagster.run_id": dagster_run,
            "quantmint.model": model,
            "mlflow.note.content": f"Built by [Dagster run {dagster_run[:8]}]"
            f"({dagster_run_url(dagster_run)}).",
        },
    )
    return str(made.info.run_id)
