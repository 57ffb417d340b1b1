"""Documents whose commands are run."""
