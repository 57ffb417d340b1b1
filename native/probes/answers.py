"""Can a machine build a kernel, can it run it, and if not, what is missing? Pure functions."""

from __future__ import annotations

import re
from dataclasses import dataclass

from quantmint.native.matrix import Kernel, LeastBy, Needs, load_matrix
from quantmint.native.probes.machine import Compiler, Machine

SYSTEMS = {"linux": "Linux", "darwin": "macOS"}
FAMILIES = {"gcc": "GCC", "clang": "Clang"}


@dataclass(frozen=True, slots=True)
class Missing:
    """One thing that is missing, and the command or step that mends it, if there is one."""

    text: str
    mend: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a machine can do with a kernel; `found` is its SDK, if that is here."""

    kernel: Kernel
    found: str
    to_build: tuple[Missing, ...]
    to_run: tuple[Missing, ...]

    @property
    def builds(self) -> bool:
        """Whether the machine can build it."""
        return not self.to_build

    @property
    def runs(self) -> bool:
        """Whether the machine can run it, once it is built."""
        return not self.to_run

    @property
    def summary(self) -> str:
        """One sentence: `nvcc 13.0 found, no GPU: builds, can't run`; "" if it does both.

        What running needs is listed root first (no GPU, hence no driver): the first stands for all.
        """
        lack = list(dict.fromkeys(m.text for m in (*self.to_build, *self.to_run[:1])))
        if not lack or self.kernel.kind == "cpu":
            return "; ".join(lack)
        builds = "builds" if self.builds else "can't build"
        runs = "runs" if self.runs else "can't run"
        said = any(text.startswith(self.found) for text in lack)
        found = f"{self.found} found, " if not said else ""
        return f"{found}{'; '.join(lack)}: {builds}, {runs}"


def answer(kernel: Kernel, machine: Machine) -> Answer:
    """Return what `machine` can do with `kernel`."""
    return Answer(
        kernel=kernel,
        found=_sdk(kernel, machine),
        to_build=missing_to_build(kernel, machine),
        to_run=missing_to_run(kernel, machine),
    )


def missing_to_build(kernel: Kernel, machine: Machine) -> tuple[Missing, ...]:
    """Return what `machine` lacks to build the kernel.

    CPU kernels are built for other machines by a cross compiler; all others on their own kind.
    """
    if machine.system != kernel.system:
        return (Missing(f"for {SYSTEMS[kernel.system]} only"),)
    if kernel.kind != "cpu" and machine.name not in kernel.machines:
        return (Missing(f"for {' or '.join(kernel.machines)}, this is {machine.name}"),)
    target = machine.name if machine.name in kernel.machines else kernel.machines[0]
    needs = {**load_matrix().build, **kernel.build.needs}
    return (*_compiler(kernel, target, machine), *_needs(needs, machine))


def missing_to_run(kernel: Kernel, machine: Machine) -> tuple[Missing, ...]:
    """Return what `machine` lacks to run the kernel, the root of it first."""
    if machine.system != kernel.system:
        return (Missing(f"for {SYSTEMS[kernel.system]} only"),)
    if machine.name not in kernel.machines:
        return (Missing(f"for {' or '.join(kernel.machines)}, this is {machine.name}"),)
    lacking = [flag for flag in kernel.run.cpu if flag not in machine.flags]
    cpu = [Missing(f"CPU without {' '.join(lacking)}")] if lacking else []
    return (*cpu, *_needs(kernel.run.needs, machine))


def _compiler(kernel: Kernel, target: str, machine: Machine) -> list[Missing]:
    """Compare the compiler for `target` with the set that the row names; none named, none asked."""
    if kernel.build.compiler is None:
        return []
    least = load_matrix().compilers[kernel.build.compiler]
    cross = "" if target == machine.name else f" for {target}"
    package = "g++" if not cross else f"g++-{target.replace('_', '-')}-linux-gnu"
    there = machine.compilers.get(target)
    if there is None:
        return [Missing(f"no C++ compiler{cross}", f"apt-get install {package}")]
    wanted = least.get("clang" if there.family == "clang" else "gcc", "")
    if there.family not in FAMILIES:
        wanted_text = " or ".join(f"{FAMILIES[f]} {v}" for f, v in least.items())
        return [Missing(f"compiler {there}{cross}, needs {wanted_text}", _set_cxx(package))]
    if _number(there.version) < _number(wanted):
        return [Missing(f"{there}{cross}, needs {wanted}", _newer(there, wanted, package, cross))]
    return []


def _newer(there: Compiler, wanted: str, package: str, cross: str) -> str:
    major = wanted.partition(".")[0]
    if there.family == "clang":
        return f"apt-get install clang-{major}; CC=clang-{major} CXX=clang++-{major}"
    if cross:
        return f"apt-get install {package.replace('g++', f'g++-{major}', 1)}"
    return f"apt-get install g++-{major}; CC=gcc-{major} CXX=g++-{major}"


def _set_cxx(package: str) -> str:
    return f"apt-get install {package}; CC=gcc CXX=g++"


def _needs(needs: Needs, machine: Machine) -> list[Missing]:
    missing = []
    for key, least in needs.items():
        need, version = load_matrix().needs[key], machine.found.get(key)
        wanted = _least_by(least, machine) if isinstance(least, LeastBy) else least
        if version is None:
            missing.append(Missing(f"no {need.what}", need.mend))
        elif wanted and not version:
            missing.append(Missing(f"{need.what} of unknown version, needs {wanted}", need.mend))
        elif _number(version) < _number(wanted):
            missing.append(Missing(f"{need.what} {version}, needs {wanted}", need.mend))
    return missing


def _least_by(least: LeastBy, machine: Machine) -> str:
    """Return the version that the other need's major version asks for.

    Without the other need any of them will do; newer than all that are known asks for the newest.
    """
    majors = sorted(least.least, key=_number)
    other = machine.found.get(least.of, "")
    fit = [major for major in majors if _number(major) <= _number(other)]
    return least.least[fit[-1] if fit else majors[0]]


def _sdk(kernel: Kernel, machine: Machine) -> str:
    """Return name and version of the row's first need: its SDK, by which people know it."""
    first = next(iter(kernel.build.needs), None)
    version = machine.found.get(first) if first else None
    return f"{load_matrix().needs[first].what} {version}" if first and version else ""


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
