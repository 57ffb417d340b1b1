"""Looking at the real machine: programs, headers, libraries, devices, and their versions."""

from __future__ import annotations

import glob
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from quantmint.errors import BuildError
from quantmint.native.host import cpu_flags, machine_name, system_name
from quantmint.native.matrix import HomeFolder, Kernel, Need, load_matrix, needs_of
from quantmint.native.probes.machine import Compiler, Machine
from quantmint.process import Command, Limits, run

LIMITS = Limits(wall_seconds=30)
HEAD = 1 << 20
CROSS = ("x86_64", "aarch64")
# What `ldconfig -p` calls the libraries of a machine.
LDCONFIG = {"x86_64": "x86-64", "aarch64": "AArch64"}


def look(kernels: Iterable[Kernel], *, build: bool = True) -> Machine:
    """Describe this machine as far as those kernels need it; without `build`, to run them only."""
    kernels = list(kernels)
    keys = dict.fromkeys(load_matrix().build) if build else {}
    for kernel in kernels:
        keys.update(dict.fromkeys(needs_of(kernel, build=build)))
    needs = load_matrix().needs
    found = {key: find(needs[key]) for key in keys}
    return Machine(
        system=system_name(),
        name=machine_name(),
        flags=cpu_flags(),
        compilers=compilers() if build else {},
        found={key: version for key, version in found.items() if version is not None},
    )


def find(need: Need) -> str | None:
    """Return the version of what is needed, "" if that can't be told, None if it is not here."""
    if need.program:
        return _program(need)
    if need.file:
        return _file(need)
    if need.library:
        return _library(need)
    return _package(need)


def compilers() -> dict[str, Compiler]:
    """Return the C++ compilers that make code for this machine and, crossing, for others."""
    own = os.environ.get("CXX")
    names: dict[str, tuple[str, ...]] = {name: (f"{name}-linux-gnu-g++",) for name in CROSS}
    names[machine_name()] = (own,) if own else ("c++", "g++", "clang++")
    found = {name: _compiler(candidates) for name, candidates in names.items()}
    return {name: compiler for name, compiler in found.items() if compiler is not None}


def _compiler(names: tuple[str, ...]) -> Compiler | None:
    path = next((path for name in names if (path := shutil.which(name))), None)
    # Its macros tell the family whatever the program is called, as CMake does it.
    said = _says([path, "-dM", "-E", "-x", "c++", os.devnull]) if path else None
    if said is None:
        return None
    macros = dict(re.findall(r"^#define (\w+) (.+)$", said, re.MULTILINE))
    if "__clang_major__" in macros:
        parts = [macros.get(f"__clang_{part}__", "0") for part in ("major", "minor", "patchlevel")]
        return Compiler("clang", ".".join(parts))
    if "__GNUC__" in macros:
        keys = ("__GNUC__", "__GNUC_MINOR__", "__GNUC_PATCHLEVEL__")
        return Compiler("gcc", ".".join(macros.get(key, "0") for key in keys))
    return Compiler(Path(str(path)).name, "of unknown version")


def _program(need: Need) -> str | None:
    said = _says([path, *need.ask]) if (path := _path(need)) else None
    return None if said is None else version_in(said, need.says)


def _path(need: Need) -> str | None:
    # Beside our own Python first: there the `build` extra puts CMake and ninja.
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", ""), *_expand(need.where)]
    paths = (shutil.which(name, path=os.pathsep.join(folders)) for name in _expand(need.program))
    return next((path for path in paths if path is not None), None)


@cache
def _home(program: str, home: HomeFolder) -> str | None:
    """Return the folder of an SDK as its program tells it, whatever links or scripts lead there."""
    said = _says([program, *home.ask])
    match = re.search(home.says, said or "", re.MULTILINE)
    return match[1].strip() if match else None


def _file(need: Need) -> str | None:
    for pattern in _expand(need.file):
        path = next(iter(sorted(glob.glob(pattern))), None)  # noqa: PTH207 - patterns are absolute
        if path is not None:
            return version_in(_head(Path(path)), need.says) if need.says else ""
    return None


def _head(path: Path) -> str:
    """Return the beginning of a file, where headers state their version; "" if it is not ours."""
    try:
        with path.open("rb") as file:
            return file.read(HEAD).decode("utf-8", "replace")
    except OSError:
        return ""


def _library(need: Need) -> str | None:
    folders = [*os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep), *_expand(need.where)]
    for name in need.library:
        if name in _loadable() or any(Path(f, name).is_file() for f in folders if f):
            return ""
    return None


def _package(need: Need) -> str | None:
    program = shutil.which("pkg-config")
    said = (_says([program, "--modversion", name]) for name in need.package) if program else ()
    return next((text.strip() for text in said if text is not None), None)


@cache
def _loadable() -> frozenset[str]:
    """Return the names of the libraries in the dynamic loader's cache."""
    program = shutil.which("ldconfig", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    said = _says([program, "-p"]) if program else None
    kind = LDCONFIG.get(machine_name(), "")
    lines = (line.split() for line in (said or "").splitlines() if kind in line)
    return frozenset(words[0] for words in lines if words)


def version_in(text: str, says: Iterable[str]) -> str:
    """Return the groups of all the expressions, joined by dots, or "" if one does not match."""
    parts: list[str] = []
    for pattern in says:
        match = re.search(pattern, text, re.MULTILINE)
        if match is None:
            return ""
        parts.extend(match.groups())
    return ".".join(parts)


def _expand(paths: Iterable[str]) -> Iterator[str]:
    """Yield the paths with their $VARIABLES replaced, leaving out those that are not set.

    A $VARIABLE is a need of the matrix that has a home, or one of the environment.
    """
    needs = load_matrix().needs
    for path in paths:
        first, _, rest = path.removeprefix("$").partition("/")
        need = needs.get(first) if path.startswith("$") else None
        whole = os.path.expandvars(path)
        if need is not None and need.home is not None:
            program = _path(need)
            home = _home(program, need.home) if program else None
            whole = f"{home}/{rest}" if home else "$"
        if "$" not in whole:
            yield from (part for part in whole.split(os.pathsep) if part)


def _says(argv: list[str]) -> str | None:
    """Return what a program prints, or None if it can't be run, fails or hangs."""
    try:
        finished = run(Command(argv=argv, limits=LIMITS), check=False)
    except BuildError:
        return None
    return finished.stdout + finished.stderr if finished.code == 0 else None
