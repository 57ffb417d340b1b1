"""Choosing kernels: which rows of the matrix this machine can run, and which is its best."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from quantmint.errors import BuildError, UserError
from quantmint.native.host import cpu_flags, machine_name, system_name
from quantmint.native.matrix import Kernel, kernel_named, load_matrix, matrix
from quantmint.native.probes.answers import Missing, missing_to_run
from quantmint.native.probes.look import find, look

__all__ = [
    "Kernel",
    "choose",
    "cpu_flags",
    "host_kernel",
    "kernel_named",
    "load_matrix",
    "machine_name",
    "matrix",
    "missing_here",
    "reference_kernel",
    "runnable",
    "runs_here",
    "system_name",
]


@cache
def runnable(machine: str, flags: frozenset[str], system: str = "linux") -> tuple[Kernel, ...]:
    """Return the CPU rows that such a machine can run, least capable first."""
    rows = (kernel for kernel in matrix() if kernel.kind == "cpu")
    return tuple(kernel for kernel in rows if not kernel.lacking(machine, flags, system))


def host_kernel() -> Kernel:
    """Return the best CPU kernel for this machine.

    Raises:
        BuildError: the matrix has no row for it.
    """
    return _cpu_kernels()[-1]


def _cpu_kernels() -> tuple[Kernel, ...]:
    found = runnable(machine_name(), cpu_flags(), system_name())
    if not found:
        raise BuildError(
            f"no kernel of the matrix runs on {system_name()} on {machine_name()}",
            mend="add a row for it to native/kernels.yaml",
        )
    return found


def reference_kernel() -> Kernel:
    """Return the kernel that all others are compared with: plain scalar code, the least capable.

    Raises:
        BuildError: the matrix has no row for this machine.
    """
    return _cpu_kernels()[0]


def runs_here(kernel: Kernel) -> bool:
    """Return whether this machine can run the kernel; it is looked at no longer than it may."""
    needs = load_matrix().needs
    if any(find(needs[key]) is None for key in kernel.run.needs):
        return False
    return not missing_here(kernel)


def missing_here(kernel: Kernel) -> tuple[Missing, ...]:
    """Return what this machine lacks to run the kernel: CPU flags, device, driver, libraries."""
    return missing_to_run(kernel, look([kernel], build=False))


def choose(wanted: str | Sequence[str]) -> tuple[Kernel, ...]:
    """Return the kernels that a model file asks for: `host`, or a list of names.

    Raises:
        UserError: a name is not in the matrix, or this machine can't run that kernel.
    """
    if wanted == "host":
        return (host_kernel(),)
    listed = [wanted] if isinstance(wanted, str) else list(wanted)
    kernels = tuple(kernel_named(name) for name in listed)
    for kernel in kernels:
        missing = missing_here(kernel)
        if missing:
            mend = next((m.mend for m in missing if m.mend), None)
            raise UserError(
                f"kernel {kernel.name!r} can't run on this machine: "
                + ", ".join(m.text for m in missing),
                mend=f"{mend}, or " * bool(mend) + "use `host` for this machine's best kernel",
            )
    return kernels
