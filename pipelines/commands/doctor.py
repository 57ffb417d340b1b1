"""`quantmint doctor`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from importlib import metadata

import click

from quantmint.errors import BuildError, QuantmintError
from quantmint.files import existing_parent, human_bytes
from quantmint.home import find_home
from quantmint.native.kernels import host_kernel, matrix
from quantmint.native.pin import current_pin
from quantmint.native.probes.accelerators import accelerators
from quantmint.native.probes.answers import Answer, answer
from quantmint.native.probes.look import look
from quantmint.native.toolchain import find_toolchain
from quantmint.registry.store import Store
from quantmint.registry.text import wrapped

Probe = Callable[[], str]
# What was asked; whether it is there, None where it is missing but not needed; what was found.
Row = tuple[str, bool | None, str]
MARKS = {True: "ok", False: "MISSING", None: "-"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings for programs.")
def doctor(as_json: bool) -> None:
    """Say what this machine has and lacks, with the command that mends it.

    Exit code 4 if something that every build needs is missing; accelerators may be.
    """
    rows = [*(_ask(name, probe) for name, probe in PROBES.items()), *_kernels()]
    if as_json:
        click.echo(
            json.dumps([dict(zip(("what", "ok", "found"), row, strict=True)) for row in rows])
        )
    else:
        shown = [[name, MARKS[ok], text] for name, ok, text in rows]
        columns = shutil.get_terminal_size((100, 24)).columns
        click.echo(wrapped(["what", "", "found"], shown, columns=columns))
    missing = [name for name, ok, _ in rows if ok is False]
    if missing:
        raise BuildError(f"missing: {', '.join(missing)}", mend="see the table above")


def _kernels() -> list[Row]:
    """Answer for the kernels and for what they run on, as `quantmint kernels list` does."""
    machine = look(matrix())
    answers = [answer(kernel, machine) for kernel in matrix()]
    cpu = [each for each in answers if each.kernel.kind == "cpu"]
    builds, runs = (sum(getattr(each, can) for each in cpu) for can in ("builds", "runs"))
    gpus = ", ".join(str(gpu) for gpu in accelerators())
    rows: list[Row] = [
        ("CPU kernels", True, f"{builds} of {len(cpu)} build here, {runs} run here"),
        ("accelerators", True if gpus else None, gpus or "none found"),
    ]
    others = (a for a in answers if a.kernel.kind != "cpu" and a.kernel.system == machine.system)
    rows.extend(
        (f"{a.kernel.name} kernel", True if a.builds and a.runs else None, _say(a)) for a in others
    )
    return rows


def _say(each: Answer) -> str:
    """Return `builds, runs`, or what is missing and what mends that."""
    missing = (*each.to_build, *each.to_run[:1])
    mends = dict.fromkeys(m.mend for m in missing if m.mend)
    return " -> ".join([each.summary or "builds, runs", *("; ".join(mends),) * bool(mends)])


def _ask(name: str, probe: Probe) -> Row:
    try:
        return name, True, probe()
    except QuantmintError as error:
        mend = f" -> {error.mend}" if error.mend else ""
        return name, False, f"{error.what}{mend}"


def _compiler() -> str:
    chain = find_toolchain()
    return f"{chain.cxx.version} ({chain.cxx.path})"


def _cmake() -> str:
    chain = find_toolchain()
    return f"{chain.cmake.version}, ninja {chain.ninja.version}"


def _bindings() -> str:
    pin = current_pin()
    try:
        found = metadata.version(pin.package)
    except metadata.PackageNotFoundError:
        found = "none"
    if found != pin.version:
        raise BuildError(
            f"{pin.package} {found} is installed, {pin.version} is pinned",
            mend=f"CMAKE_ARGS=-DLLAMA_BUILD=OFF pip install {pin.package}=={pin.version}",
        )
    return f"{pin.package} {found}"


def _source() -> str:
    store, pin = Store(find_home().store), current_pin()
    there = store.path(pin.sha256).is_file()
    return f"{pin.commit}, " + ("in the store" if there else "to be fetched on the first build")


def _home() -> str:
    root = find_home().root
    folder = existing_parent(root)
    if not os.access(folder, os.W_OK):
        raise BuildError(f"{folder} can't be written", mend="set QUANTMINT_HOME")
    return f"{root} ({human_bytes(shutil.disk_usage(folder).free)} free)"


PROBES: dict[str, Probe] = {
    "C++ compiler": _compiler,
    "CMake, ninja": _cmake,
    "bindings": _bindings,
    "llama.cpp": _source,
    "best kernel": lambda: host_kernel().name,
    "home": _home,
}
