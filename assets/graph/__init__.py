"""The Dagster assets: thin wrappers over the stages. What is computed lives in the stages."""
