"""The kernel matrix as typed, validated data: native/kernels.yaml.

A row says how its kernel is configured, what building and running it need, and how a run is made
to use it. `native/probes` answers whether a machine has those things.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from quantmint import names
from quantmint.errors import UserError, nearest
from quantmint.yaml_loader import load_own

Kind = Literal["cpu", "blas", "cuda", "vulkan", "metal", "hip", "sycl"]
System = Literal["linux", "darwin"]
Version = Annotated[str, Field(pattern=r"^(\d+(\.\d+)*)?$")]
Key = Annotated[str, Field(pattern=r"^[a-z0-9]+([+._-][a-z0-9]+)*$")]


def _compiled(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from error
    return pattern


Pattern = Annotated[str, AfterValidator(_compiled)]
MATRIX_FILE: Final = Path(__file__).with_name("kernels.yaml")


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HomeFolder(_Row):
    """How a program is asked for the folder that its SDK lies in: the group of `says`."""

    ask: tuple[str, ...]
    says: Pattern


class Need(_Row):
    """A program, file or library outside of llama.cpp: how it is found and what installs it.

    Exactly one of `program`, `file`, `library` and `package` is given. The groups of the regular
    expressions in `says`, joined by dots, are its version.
    """

    what: str
    mend: str
    program: tuple[str, ...] = ()
    file: tuple[str, ...] = ()
    library: tuple[str, ...] = ()
    package: tuple[str, ...] = ()
    where: tuple[str, ...] = ()
    ask: tuple[str, ...] = ()
    says: tuple[Pattern, ...] = ()
    home: HomeFolder | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = [self.program, self.file, self.library, self.package]
        if sum(bool(way) for way in ways) != 1:
            raise ValueError("give exactly one of program, file, library, package")
        return self


class LeastBy(_Row):
    """A least version that depends on the major version of another need."""

    of: Key
    least: dict[Version, Version]


Needs = dict[Key, Version | LeastBy]


class Build(_Row):
    """What building a kernel needs: a compiler of one of the sets in `compilers`, and needs."""

    compiler: Key | None = None
    needs: Needs = {}


class Run(_Row):
    """What running a kernel needs: flags of the CPU as /proc/cpuinfo names them, and needs."""

    cpu: tuple[str, ...] = ()
    needs: Needs = {}


class Force(_Row):
    """How a run is made to use the kernel, beyond its being the only one in the folder.

    `device` is llama.cpp's name for its first device (`--device`), `gpu_layers` how many layers
    go there (`--gpu-layers`; more than a model has means all of them).
    """

    device: str | None = None
    gpu_layers: int = 0


class Kernel(_Row):
    """One row of the matrix: a shared library with llama.cpp's kernels for one kind of machine.

    `tree` names the CMake tree that it is configured in; rows of one tree and one machine share
    it and its `options`. `beside` says which CPU kernel lies in the same folder: the host's best.
    """

    name: Annotated[str, Field(pattern=f"^{names.KERNEL.pattern}$", max_length=names.LONGEST)]
    kind: Kind
    machines: Annotated[tuple[str, ...], Field(min_length=1)]
    system: System = "linux"
    tree: Key
    options: dict[str, str] = {}
    target: Annotated[str, Field(pattern=r"^ggml-[a-z0-9._-]+$")]
    beside: Literal["host"] | None = None
    build: Build = Build()
    run: Run = Run()
    force: Force = Force()

    @property
    def library(self) -> str:
        """The file name of the kernel's shared library (a module: `.so` on macOS too)."""
        return f"lib{self.target}.so"

    def lacking(self, machine: str, flags: frozenset[str], system: str = "linux") -> list[str]:
        """Return what a CPU and system lack to run this kernel; devices are the probes' matter."""
        if system != self.system:
            return [f"system {self.system} (this is {system})"]
        if machine not in self.machines:
            return [f"machine {' or '.join(self.machines)} (this is {machine})"]
        return [flag for flag in self.run.cpu if flag not in flags]


class Matrix(_Row):
    """The whole file: common options and needs, the vocabulary of needs, the rows."""

    options: dict[str, str]
    build: Needs
    compilers: dict[Key, dict[Literal["gcc", "clang"], Version]]
    needs: dict[Key, Need]
    kernels: tuple[Kernel, ...]

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        for key in ("name", "target"):
            values = [getattr(kernel, key) for kernel in self.kernels]
            if len(set(values)) != len(values):
                raise ValueError(f"two kernels have the same {key}")
        named = {*self.build, *(need for k in self.kernels for need in needs_of(k))}
        if unknown := sorted(named - set(self.needs)):
            raise ValueError(f"needs that are not described: {', '.join(unknown)}")
        wanted = {k.build.compiler for k in self.kernels if k.build.compiler is not None}
        if unknown := sorted(wanted - set(self.compilers)):
            raise ValueError(f"compilers that are not described: {', '.join(unknown)}")
        return self


def needs_of(kernel: Kernel, *, build: bool = True) -> list[str]:
    """Return the keys of the needs that a row names, of running only without `build`."""
    rows = {**(kernel.build.needs if build else {}), **kernel.run.needs}
    return [*rows, *(least.of for least in rows.values() if isinstance(least, LeastBy))]


@cache
def load_matrix() -> Matrix:
    """Return the whole of native/kernels.yaml."""
    return Matrix.model_validate(load_own(MATRIX_FILE))


def matrix() -> tuple[Kernel, ...]:
    """Return every row of the kernel matrix; CPU rows least capable first."""
    return load_matrix().kernels


def kernel_named(name: str) -> Kernel:
    """Return the row of that name.

    Raises:
        UserError: there is none; the message names the nearest one.
    """
    rows = {kernel.name: kernel for kernel in matrix()}
    if name not in rows:
        raise UserError(
            f"there is no kernel {name!r}{nearest(name, rows)}",
            mend="`quantmint kernels list` has the names; `host` is this machine's best",
        )
    return rows[name]
