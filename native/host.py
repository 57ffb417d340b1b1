"""What the operating system says of this machine: its kind, and the instructions of its CPU."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

from quantmint.process import Command, Limits, run

# What macOS calls the features that Linux's /proc/cpuinfo has by these names.
DARWIN_FLAGS = {
    "FEAT_DotProd": ("asimddp",),
    "FEAT_FP16": ("fphp", "asimdhp"),
    "FEAT_I8MM": ("i8mm",),
    "FEAT_SME": ("sme",),
}


def machine_name() -> str:
    """Return the machine as the matrix names it."""
    name = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)


def system_name() -> str:
    """Return the operating system as the matrix names it."""
    return platform.system().lower()


@cache
def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Return the instruction-set flags that the operating system reports for this CPU."""
    if system_name() == "darwin":
        command = Command(argv=["sysctl", "hw.optional.arm"], limits=Limits(wall_seconds=10))
        return darwin_flags(run(command, check=False).stdout)
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return frozenset()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in {"flags", "Features"}:
            return frozenset(value.split())
    return frozenset()


def darwin_flags(sysctl: str) -> frozenset[str]:
    """Return the flags in the output of `sysctl hw.optional.arm`, by Linux's names."""
    there: set[str] = set()
    for line in sysctl.splitlines():
        key, _, value = line.partition(":")
        if value.strip() == "1":
            there.update(DARWIN_FLAGS.get(key.rpartition(".")[2], ()))
    return frozenset(there)


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's name, by which speeds can be told apart."""
    try:
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
