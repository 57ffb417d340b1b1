"""Asking a machine which kernels of the matrix it can build and run, and what it lacks."""
