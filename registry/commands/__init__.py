"""The command line of the base install: what works without the mint."""
