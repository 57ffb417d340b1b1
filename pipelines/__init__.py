"""What is built: model files, their spec, Dagster definitions, the mint's commands."""
