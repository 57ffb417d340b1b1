"""Sweeps: a store is killed, or its disk fails, at every single system call of every operation."""
