"""Bringing what a tree built into the store, under the names by which it is looked for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from quantmint.native.building.options import TOOLS
from quantmint.process import Command, run
from quantmint.registry.store import Store
from quantmint.registry.trees import TreeFile

SONAME: Final = re.compile(r"(?P<plain>lib[\w.+-]+?\.so)(?:\.(?P<major>\d+))?(?:\.\d+)*")
# What every Linux has, or must have in exactly its own version: C and C++ run times, drivers.
SYSTEM: Final = re.compile(
    r"(linux-vdso|ld-linux[\w-]*|lib(c|m|dl|rt|pthread|stdc\+\+|gcc_s|gomp|cuda|vulkan))\.so[.\d]*"
)
_RESOLVED: Final = re.compile(r"^\s*(?P<name>\S+) => (?P<path>/\S+) \(0x", re.MULTILINE)


def put_base(store: Store, folder: Path) -> list[TreeFile]:
    """Bring the tools, and the libraries that they need but for kernels, into the store."""
    files = []
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not path.is_file():
            continue
        if path.name in TOOLS:
            files.append(TreeFile(path.name, store.put(path), executable=True))
        elif SONAME.fullmatch(path.name) and not _is_kernel(path.name):
            blob = store.put(path)
            files += [TreeFile(name, blob) for name in library_names(path.name)]
    return files


def put_foreign(store: Store, library: Path, linked: Iterable[Path]) -> list[TreeFile]:
    """Bring the libraries of an SDK that `library` needs (cuBLAS, OpenBLAS) into the store.

    Args:
        store: where they go.
        library: a shared library that was just built, for this machine.
        linked: the libraries that it was linked with, by path: theirs are the folders to look in.

    Raises:
        BuildError: the dynamic loader can't read `library`.
    """
    folders = sorted({str(path.parent) for path in linked})
    env = {"LD_LIBRARY_PATH": ":".join([str(library.parent), *folders])}
    listed = run(Command(argv=["ldd", library], env=env)).stdout
    found = {row["name"]: Path(row["path"]) for row in _RESOLVED.finditer(listed)}
    return [
        TreeFile(name, store.put(path.resolve()))
        for name, path in sorted(found.items())
        if not SYSTEM.fullmatch(name) and path.parent != library.parent
    ]


def linked_paths(flags: Sequence[str]) -> list[Path]:
    """Return the libraries that stand with their whole path among link flags."""
    words = [word for flag in flags for word in flag.split()]
    return [Path(word) for word in words if word.startswith("/") and ".so" in word]


def library_names(name: str) -> list[str]:
    """Return the names by which a library is looked for: `libx.so` and its soname `libx.so.0`."""
    found = SONAME.fullmatch(name)
    if found is None:
        return []
    soname = f"{found['plain']}.{found['major']}" if found["major"] else found["plain"]
    return sorted({found["plain"], soname})


def _is_kernel(name: str) -> bool:
    """Return whether a library of the tree is a kernel: all but ggml's own two are modules."""
    return name.startswith("libggml-") and not name.startswith("libggml-base.")
