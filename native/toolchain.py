"""Finding the compiler, CMake and ninja, and saying what is missing."""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from quantmint.errors import BuildError
from quantmint.files import digest_of
from quantmint.process import Command, run


@dataclass(frozen=True, slots=True)
class Tool:
    """A program: where it is, and the first line of what it says of its version."""

    name: str
    path: Path
    version: str


@dataclass(frozen=True, slots=True)
class Toolchain:
    """Everything that building llama.cpp needs."""

    cc: Tool
    cxx: Tool
    cmake: Tool
    ninja: Tool
    triple: str

    @property
    def identity(self) -> str:
        """A digest that changes when another compiler or CMake would be used."""
        tools = (self.cc, self.cxx, self.cmake, self.ninja)
        return digest_of([self.triple, *([tool.name, tool.version] for tool in tools)])


def find_toolchain() -> Toolchain:
    """Find the compilers (`CC` and `CXX` win), CMake and ninja.

    Raises:
        BuildError: one is missing; the message says how to install it.
    """
    cxx = _compiler("C++", os.environ.get("CXX"), ("c++", "g++", "clang++"))
    return Toolchain(
        cc=_compiler("C", os.environ.get("CC"), ("cc", "gcc", "clang")),
        cxx=cxx,
        cmake=_packaged("cmake"),
        ninja=_packaged("ninja"),
        triple=_says(str(cxx.path), "-dumpmachine"),
    )


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


@cache
def _says(path: str, option: str) -> str:
    """Return the first line of what the program prints, without its own path in it."""
    finished = run(Command(argv=[path, option]))
    first = (finished.stdout or finished.stderr).strip().splitlines()[0]
    return re.sub(r"\s+", " ", first)
