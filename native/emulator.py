"""Running programs for another machine, or on a lesser CPU than this one, under qemu-user."""

from __future__ import annotations

import shutil

from quantmint.errors import BuildError
from quantmint.native.host import machine_name


def emulator(machine: str) -> tuple[str, ...]:
    """Return what stands before a program's name to run it here: nothing on its own machine.

    Where qemu-user lacks, its name alone: starting it then fails with what is missing.
    """
    if machine == machine_name():
        return ()
    return (f"qemu-{machine}", "-L", f"/usr/{machine}-linux-gnu")


def lesser_cpu(model: str) -> tuple[str, ...]:
    """Return what stands before a program's name to run it on a CPU of this machine's kind.

    `model` is qemu's name for it: `Nehalem`, `Haswell`, ... (`qemu-x86_64 -cpu help`).

    Raises:
        BuildError: qemu-user is not installed.
    """
    name = f"qemu-{machine_name()}"
    path = shutil.which(name)
    if path is None:
        raise BuildError(f"{name} was not found", mend="apt-get install qemu-user")
    return (path, "-cpu", model)
