"""How many compilers to run at once: as many as the cores and the memory that we may use allow."""

from __future__ import annotations

import os
from pathlib import Path

MEMORY_PER_JOB = 1_500_000_000
# nvcc compiles for device and host, one after another, with templates that need it.
MEMORY_PER_CUDA_JOB = 3_000_000_000
_CGROUP = Path("/sys/fs/cgroup")


def jobs(memory_per_job: int = MEMORY_PER_JOB) -> int:
    """Return how many compilers to run at once."""
    return max(1, min(cores(), memory() // memory_per_job))


def cores(cgroup: Path = _CGROUP) -> int:
    """Return how many cores we may use: the affinity mask, and the container's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota, _, period = _word(cgroup / "cpu.max").partition(" ")
    if quota.isdecimal() and period.isdecimal():
        return max(1, min(allowed or 1, -(-int(quota) // int(period))))
    return allowed or 1


def memory(cgroup: Path = _CGROUP) -> int:
    """Return how many bytes we may use: the machine's memory, or the container's limit."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _word(cgroup / "memory.max")
    return min(installed, int(limit)) if limit.isdecimal() else installed


def _word(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
