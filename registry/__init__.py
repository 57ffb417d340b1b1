"""The content-addressed store, and all that a puller needs; no Dagster, MLflow or torch."""
