"""The small description of a machine that every answer is computed from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Compiler:
    """A C++ compiler: `gcc`, `clang` or another family, and its version."""

    family: str
    version: str

    def __str__(self) -> str:
        family = {"gcc": "GCC", "clang": "Clang"}.get(self.family, self.family)
        return f"{family} {self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine as far as kernels are concerned.

    `flags` are the CPU's, as /proc/cpuinfo names them. `compilers` maps kinds of machine to the
    compiler that makes code for them: this machine's own, and cross compilers. `found` maps the
    needs of the matrix that are there to their versions; a version that can't be told is "".
    """

    system: str
    name: str
    flags: frozenset[str] = frozenset()
    compilers: Mapping[str, Compiler] = field(default_factory=dict)
    found: Mapping[str, str] = field(default_factory=dict)
