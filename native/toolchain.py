"""Finding compilers (for this machine or another), CMake and ninja; saying what is missing."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from quantmint.errors import BuildError
from quantmint.files import digest_of
from quantmint.native.host import machine_name
from quantmint.process import Command, run


@dataclass(frozen=True, slots=True)
class Tool:
    """A program: where it is, and the first line of what it says of its version."""

    name: str
    path: Path
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Compilers:
    """What makes object code. `machine` is what they compile for."""

    cc: Tool
    cxx: Tool
    triple: str
    machine: str
    binutils: tuple[str, ...]

    @property
    def compiler(self) -> str:
        """A digest that changes when another compiler, assembler or linker would be used."""
        tools = [[tool.name, tool.version] for tool in (self.cc, self.cxx)]
        return digest_of([self.triple, self.machine, tools, list(self.binutils)])

    @property
    def is_cross(self) -> bool:
        """Whether they compile for another kind of machine than this one."""
        return self.machine != machine_name()


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchain(Compilers):
    """Everything that building llama.cpp needs."""

    cmake: Tool
    ninja: Tool

    @property
    def identity(self) -> str:
        """A digest that changes when another compiler, CMake or ninja would be used."""
        tools = [[tool.name, tool.version] for tool in (self.cmake, self.ninja)]
        return digest_of([self.compiler, tools])

    @property
    def options(self) -> dict[str, str]:
        """What CMake must be told of it."""
        found = {
            "CMAKE_C_COMPILER": str(self.cc.path),
            "CMAKE_CXX_COMPILER": str(self.cxx.path),
            "CMAKE_MAKE_PROGRAM": str(self.ninja.path),
        }
        if self.is_cross:
            found |= {"CMAKE_SYSTEM_NAME": "Linux", "CMAKE_SYSTEM_PROCESSOR": self.machine}
        return found


def find_compilers(machine: str | None = None) -> Compilers:
    """Find the compilers alone.

    Args:
        machine: what to compile for, as `uname -m` prints it; this machine by default. `CC` and
            `CXX` win for this machine; for another one, GCC under its Debian name is taken.

    Raises:
        BuildError: one is missing; the message says how to install it.
    """
    wanted = machine or machine_name()
    if wanted == machine_name():
        cxx = _compiler("C++", os.environ.get("CXX"), ("c++", "g++", "clang++"))
        cc = _compiler("C", os.environ.get("CC"), ("cc", "gcc", "clang"))
    else:
        cxx, cc = _cross(wanted, "g++"), _cross(wanted, "gcc")
    return Compilers(
        cc=cc,
        cxx=cxx,
        triple=_says(str(cxx.path), "-dumpmachine"),
        machine=wanted,
        binutils=tuple(_binutil(cxx, name) for name in ("as", "ld")),
    )


def find_toolchain(machine: str | None = None) -> Toolchain:
    """Find the compilers (see `find_compilers`), CMake and ninja.

    Raises:
        BuildError: one is missing; the message says how to install it.
    """
    cmake, ninja = _packaged("cmake"), _packaged("ninja")
    found = find_compilers(machine)
    return Toolchain(
        cc=found.cc,
        cxx=found.cxx,
        triple=found.triple,
        machine=found.machine,
        binutils=found.binutils,
        cmake=cmake,
        ninja=ninja,
    )


def compiler_identity(machine: str | None = None) -> str:
    """Return the compilers' digest, or `none` where there is none: for code versions.

    CMake is not asked: it decides nothing here, and pip's takes a quarter of a second to answer.
    """
    try:
        return find_compilers(machine).compiler
    except BuildError:
        return "none"


def _compiler(language: str, chosen: str | None, usual: tuple[str, ...]) -> Tool:
    for name in (chosen,) if chosen else usual:
        path = shutil.which(name)
        if path is not None:
            return Tool(Path(name).name, Path(path), _says(path, "--version"))
    looked = chosen or ", ".join(usual)
    raise BuildError(
        f"no {language} compiler was found (looked for {looked}): llama.cpp can't be built",
        mend="apt-get install g++   (or your system's package of GCC or Clang)",
    )


def _cross(machine: str, name: str) -> Tool:
    full = f"{machine}-linux-gnu-{name}"
    path = shutil.which(full)
    if path is None:
        raise BuildError(
            f"{full} was not found: kernels for {machine} can't be built on {machine_name()}",
            mend=f"apt-get install g++-{machine.replace('_', '-')}-linux-gnu",
        )
    return Tool(full, Path(path), _says(path, "--version"))


def _packaged(name: str) -> Tool:
    """Find a tool that the `build` extra installs, beside our own Python before elsewhere."""
    beside = Path(sys.executable).parent
    path = shutil.which(name, path=f"{beside}{os.pathsep}{os.environ.get('PATH', '')}")
    if path is None:
        raise BuildError(
            f"{name} was not found: llama.cpp can't be built",
            mend="pip install 'quantmint[build]'",
        )
    return Tool(name, Path(path), _says(path, "--version"))


def _binutil(cxx: Tool, name: str) -> str:
    """Return the version of the assembler or linker that the compiler calls; it makes bytes too."""
    path = shutil.which(_says(str(cxx.path), f"-print-prog-name={name}"))
    return _says(path, "--version") if path else f"{name} unknown"


@cache
def _says(path: str, option: str) -> str:
    """Return the first line of what the program prints, without its own path in it."""
    first = (_asked(path, option) or _run(path, option)).strip().splitlines()[0]
    return re.sub(r"\s+", " ", first)


def _asked(path: str, option: str) -> str:
    """Ask without limits: a plain start of a process takes a tenth of the time, and commands that
    have nothing to do ask nine times. Empty if anything is amiss: then it is asked with them.
    """
    words = [path, option]
    with contextlib.suppress(OSError, subprocess.SubprocessError, UnicodeDecodeError):
        done = subprocess.run(
            words, capture_output=True, stdin=subprocess.DEVNULL, timeout=20, check=True, text=True
        )
        return done.stdout or done.stderr
    return ""


def _run(path: str, option: str) -> str:
    finished = run(Command(argv=[path, option]))
    return finished.stdout or finished.stderr
