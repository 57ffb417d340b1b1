"""How each artifact is made: plain functions per stage, and the thin Dagster assets over them."""
