"""The command line of the mint: needs the `build` extra."""
