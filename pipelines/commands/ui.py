"""`quantmint ui`."""

from __future__ import annotations

import click

from quantmint.assets.tracking import DAGSTER_PORT, MLFLOW_PORT
from quantmint.home import find_home


@click.command()
@click.option("--port", default=DAGSTER_PORT, show_default=True, help="Dagster's page.")
@click.option("--mlflow-port", default=MLFLOW_PORT, show_default=True, help="MLflow's page.")
def ui(port: int, mlflow_port: int) -> None:
    """Serve the Dagster and MLflow pages on loopback.

    History and state are kept below QUANTMINT_HOME. Ctrl-C stops everything.
    """
    from quantmint.pipelines.ui import Ports, serve

    serve(find_home(), Ports(port, mlflow_port), click.echo)
