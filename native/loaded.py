"""Which libraries a run really had mapped: told by the dynamic loader itself (LD_DEBUG, glibc).

A kernel is proved to be the one that ran by the loader's own record of the run, not by what lay
in the folder.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from quantmint.errors import IntegrityError
from quantmint.native.build import Bundle
from quantmint.process import Command, Finished, run

_LINE = re.compile(r"^\s*\d+:\s+calling (?P<what>init|fini): ?(?P<path>.*?)(?: \[\d+\])?$")
_INIT = re.compile(r"calling init: (?P<path>.+)$", re.MULTILINE)
_KERNEL = re.compile(r"libggml-(?!base\.)[\w.+-]+\.so[.\d]*")
_OURS = re.compile(r"lib(ggml|llama|mtmd)[\w.+-]*\.so[.\d]*")


@dataclass(frozen=True, slots=True)
class Watched:
    """A run: how it ended, the libraries mapped to its end, and all that were ever mapped.

    llama.cpp's loader maps every kernel in its folder to ask for a score, and unmaps it again.
    """

    finished: Finished
    mapped: tuple[Path, ...]
    touched: tuple[Path, ...]

    @property
    def kernels(self) -> list[Path]:
        """The kernels that ran."""
        return kernels_among(self.mapped)


def run_watched(command: Command, *, check: bool = True) -> Watched:
    """Run `command`; return how it ended, and which libraries it had mapped.

    Raises:
        BuildError: see `quantmint.process.run`.
    """
    folder = Path(tempfile.mkdtemp(prefix="quantmint-loaded-"))
    env = {**command.env, "LD_DEBUG": "libs", "LD_DEBUG_OUTPUT": str(folder / "loader")}
    try:
        finished = run(dataclasses.replace(command, env=env), check=check)
        records = [path.read_text("utf-8", "replace") for path in sorted(folder.iterdir())]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    ends = dict.fromkeys(path for text in records for path in mapped_to_the_end(text))
    ever = dict.fromkeys(Path(m["path"]) for text in records for m in _INIT.finditer(text))
    return Watched(finished, tuple(ends), tuple(ever))


def mapped_to_the_end(record: str) -> list[Path]:
    """Return the libraries in the loader's record of one process that were mapped at its end.

    At exit the loader finishes the program itself first (an empty name, or its path): it alone was
    never initialized as a library. What it unmaps before that was closed by the program.
    """
    mapped: dict[Path, None] = {}
    ever: set[str] = set()
    for line in record.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        if found["what"] == "init":
            ever.add(found["path"])
            mapped[Path(found["path"])] = None
        elif found["path"] in ever:
            mapped.pop(Path(found["path"]), None)
        else:
            break
    return list(mapped)


def kernels_among(libraries: Iterable[Path]) -> list[Path]:
    """Return the kernels among mapped libraries."""
    return [path for path in libraries if _KERNEL.fullmatch(path.name)]


def require_own(bundle: Bundle, libraries: Iterable[Path]) -> None:
    """Refuse a run whose libraries of llama.cpp were not the bundle's, or not its kernel.

    Raises:
        IntegrityError: a library came from elsewhere, or the bundle's kernel was not mapped.
    """
    listed = list(libraries)
    foreign = [p for p in listed if _OURS.fullmatch(p.name) and p.parent != bundle.folder]
    if foreign:
        raise IntegrityError(
            f"a run of {bundle.kernel.name} mapped {', '.join(map(str, foreign))}: "
            f"these are not the bundle's ({bundle.folder})",
            mend="unset LD_PRELOAD and LD_AUDIT, and run again",
        )
    if bundle.kernel_library not in listed:
        found = ", ".join(path.name for path in kernels_among(listed)) or "none"
        raise IntegrityError(
            f"a run of {bundle.kernel.name} did not map {bundle.kernel.library}; kernels: {found}",
            mend="quantmint kernels list  (can this machine run it?)",
        )
