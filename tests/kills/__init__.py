"""The service and its runs, killed at any point: see `__main__`."""
