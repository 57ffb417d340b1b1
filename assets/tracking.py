"""MLflow: one run per build and model, with digests, metrics and tools; never a model's bytes."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from quantmint.errors import QuantmintError
from quantmint.home import Home, find_home

if TYPE_CHECKING:
    from mlflow import MlflowClient as Client

MLFLOW_PORT: Final = 5000
DAGSTER_PORT: Final = 3000
OFF: Final = "off"
ADDRESS: Final = "MLFLOW_TRACKING_URI"
# MLflow's own bound for params and long tags is 6000.
MOST_CHARACTERS: Final = 5000
LOCK_SECONDS: Final = 5.0
PATIENCE: Final = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
T = TypeVar("T")
# Where logging failed in this process: it is not tried, nor spoken of, again.
_failed: set[str] = set()


@dataclass(frozen=True, slots=True)
class Tracked:
    """One MLflow run, and where a browser finds it while `quantmint ui` is up."""

    run_id: str
    experiment_id: str

    @property
    def url(self) -> str:
        """The address of the run's page."""
        root = _page("QUANTMINT_MLFLOW_URL", "MLflow", MLFLOW_PORT)
        return f"{root}/#/experiments/{self.experiment_id}/runs/{self.run_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What one step adds to its build's run."""

    params: Mapping[str, object]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


def tracking_uri(home: Home) -> str:
    """Return `MLFLOW_TRACKING_URI`, or the SQLite database in the home folder."""
    return os.environ.get(ADDRESS) or f"sqlite:///{home.mlflow / 'mlflow.db'}"


def tracking_server(home: Home) -> str | None:
    """Return the page of the server that `MLFLOW_TRACKING_URI` names; None for a database."""
    uri = tracking_uri(home)
    return _without_secrets(uri).rstrip("/") if uri.startswith("http") else None


def dagster_run_url(run_id: str) -> str:
    """Return the address of a Dagster run's page."""
    root = _page("QUANTMINT_DAGSTER_URL", "Dagster", DAGSTER_PORT)
    return f"{root}/runs/{run_id}"


def _page(variable: str, server: str, port: int) -> str:
    """Return the address of a server's pages: as set, as the home's service says, or as usual."""
    return os.environ.get(variable) or _served(server) or f"http://127.0.0.1:{port}"


def _served(server: str) -> str | None:
    """Return where the service of this home, if one is up, shows a server."""
    try:
        said = json.loads(find_home().service.read_bytes()[:10_000])
        page = said["pages"][server]
    except (OSError, ValueError, LookupError, TypeError, QuantmintError):
        return None
    return page if isinstance(page, str) and page.startswith("http") else None


def record(home: Home, model: str, dagster_run: str, entry: Entry) -> Tracked | None:
    """Add to the MLflow run of this build, begun on first use.

    A build is one Dagster run. None when tracking is off or can't be reached: see `tracked`.
    """

    def add(client: Client) -> Tracked:
        experiment = experiment_of(client, home, model)
        run_id = build_run(client, experiment, model, dagster_run)
        write(client, run_id, entry)
        client.set_terminated(run_id, "FINISHED")
        return Tracked(run_id, experiment)

    return tracked(home, add)


def tracked(home: Home, log: Callable[[Client], T]) -> T | None:
    """Return what `log` made of an MLflow client; None when tracking is off or fails.

    `QUANTMINT_TRACKING=off` switches tracking off. A database that is locked, full or gone is one
    warning for each process, and never fails a build: what counts lies in the store.
    """
    uri = tracking_uri(home)
    if os.environ.get("QUANTMINT_TRACKING") == OFF or uri in _failed:
        return None
    try:
        _require_writable(uri)
        with _named(uri):
            return log(_client(home, uri))
    except Exception as error:  # noqa: BLE001 - MLflow's, SQLAlchemy's, the network's, the disk's
        _failed.add(uri)
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        logging.getLogger("quantmint").warning(
            "MLflow at %s can't be written (%s): this process records nothing more there, and the "
            "build goes on; mend the database or server, or set QUANTMINT_TRACKING=off",
            _without_secrets(uri).partition("?")[0],
            _without_secrets(said)[:300],
        )
        return None


def write(client: Client, run_id: str, entry: Entry, *, model_id: str | None = None) -> None:
    """Add an entry to a run in one transaction; its metrics to a logged model as well."""
    from mlflow.entities import Metric, Param, RunTag

    now = int(time.time() * 1000)
    client.log_batch(
        run_id,
        metrics=[
            Metric(key, float(number), now, 0, model_id=model_id, run_id=run_id)
            for key, number in entry.metrics.items()
        ],
        params=[Param(key, str(value)[:MOST_CHARACTERS]) for key, value in entry.params.items()],
        tags=[RunTag(key, text[:MOST_CHARACTERS]) for key, text in entry.tags.items()],
    )


@contextlib.contextmanager
def _named(uri: str) -> Iterator[None]:
    """Let those parts of MLflow that ask the environment for its address find this one."""
    before = os.environ.get(ADDRESS)
    os.environ[ADDRESS] = uri
    try:
        yield
    finally:
        if before is None:
            del os.environ[ADDRESS]
        else:
            os.environ[ADDRESS] = before


def _require_writable(uri: str) -> None:
    """Find out in seconds, not after MLflow's many attempts, that a SQLite database is locked.

    Raises:
        sqlite3.Error: it is, or it is none.
    """
    path = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or not path.is_file():
        return
    with contextlib.closing(sqlite3.connect(path, timeout=LOCK_SECONDS)) as database:
        database.execute("BEGIN IMMEDIATE")
        database.rollback()


def _without_secrets(text: str) -> str:
    """Return a text without the names and passwords that stand in its addresses."""
    return re.sub(r"//[^/\s]*@", "//", text)


def _client(home: Home, uri: str) -> Client:
    home.mlflow.mkdir(parents=True, exist_ok=True)
    if uri.startswith("http"):  # by default a server that is gone is asked for a quarter of an hour
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SQLAlchemy's deprecations inside MLflow are not ours
        from mlflow import MlflowClient

        # Making the database's tables is no news for whoever builds a model.
        for name in ("mlflow", "mlflow.store.db.utils", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def experiment_of(client: Client, home: Home, model: str) -> str:
    """Return the id of the model's experiment, made on first use."""
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


def build_run(client: Client, experiment: str, model: str, dagster_run: str) -> str:
    """Return the id of the run of one build of a model, begun on first use."""
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
