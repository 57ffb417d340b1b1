"""The kernel matrix as data, and which of its rows this machine can run."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field

from quantmint import names
from quantmint.errors import BuildError, UserError, nearest


class Kernel(BaseModel):
    """One row of the matrix: a shared library with llama.cpp's kernels for one kind of CPU."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=f"^{names.KERNEL.pattern}$")]
    machine: str
    target: Annotated[str, Field(pattern=r"^ggml-[a-z0-9._-]+$")]
    cpu: tuple[str, ...]

    @property
    def library(self) -> str:
        """The file name of the kernel's shared library."""
        return f"lib{self.target}.so"

    def lacking(self, machine: str, flags: frozenset[str]) -> list[str]:
        """Return what a CPU lacks to run this kernel; an empty list means that it can."""
        if machine != self.machine:
            return [f"machine {self.machine} (this is {machine})"]
        return [flag for flag in self.cpu if flag not in flags]


class _Matrix(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    kernels: tuple[Kernel, ...]


@cache
def matrix() -> tuple[Kernel, ...]:
    """Return every row of the kernel matrix, least capable first."""
    path = Path(__file__).with_name("kernels.yaml")
    return _Matrix.model_validate(yaml.safe_load(path.read_text(encoding="utf-8"))).kernels


def machine_name() -> str:
    """Return the machine as the matrix names it."""
    name = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)


@cache
def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Return the instruction-set flags that the operating system reports for this CPU."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return frozenset()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in {"flags", "Features"}:
            return frozenset(value.split())
    return frozenset()


def runnable(machine: str, flags: frozenset[str]) -> list[Kernel]:
    """Return the rows that such a CPU can run, least capable first."""
    return [kernel for kernel in matrix() if not kernel.lacking(machine, flags)]


def host_kernel() -> Kernel:
    """Return the best kernel for this machine.

    Raises:
        BuildError: the matrix has no row for it.
    """
    found = runnable(machine_name(), cpu_flags())
    if not found:
        raise BuildError(
            f"no kernel of the matrix runs on {machine_name()}",
            mend="add a row for it to native/kernels.yaml",
        )
    return found[-1]


def choose(wanted: str | Sequence[str]) -> tuple[Kernel, ...]:
    """Return the kernels that a model file asks for: `host`, or a list of names.

    Raises:
        UserError: a name is not in the matrix, or this CPU can't execute that kernel.
    """
    if wanted == "host":
        return (host_kernel(),)
    listed = [wanted] if isinstance(wanted, str) else list(wanted)
    kernels = tuple(kernel_named(name) for name in listed)
    for kernel in kernels:
        lacking = kernel.lacking(machine_name(), cpu_flags())
        if lacking:
            raise UserError(
                f"kernel {kernel.name!r} can't run on this machine: it lacks {', '.join(lacking)}",
                mend="use `host` for the best kernel of this machine",
            )
    return kernels


def kernel_named(name: str) -> Kernel:
    """Return the row of that name.

    Raises:
        UserError: there is none; the message names the nearest one.
    """
    rows = {kernel.name: kernel for kernel in matrix()}
    if name not in rows:
        raise UserError(
            f"there is no kernel {name!r}{nearest(name, rows)}",
            mend="use a name out of native/kernels.yaml, or `host`",
        )
    return rows[name]
