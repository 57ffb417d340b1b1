"""Bundles that were built before, without asking whether they could be built here again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from quantmint import names
from quantmint.errors import IntegrityError
from quantmint.native.building.bundle import MADE_FROM
from quantmint.native.kernels import runs_here
from quantmint.native.matrix import Kernel, matrix
from quantmint.native.pin import current_pin
from quantmint.registry.store import Store
from quantmint.registry.trees import checkout, load_tree

# The quickest first, as far as several can run on one GPU.
GPU_KINDS: Final = ("cuda", "hip", "metal", "sycl", "vulkan")
_LIMIT: Final = 16 << 20


def gpu_kernels() -> list[Kernel]:
    """Return the kernels for GPUs that this machine has what is needed to run, the best first."""
    rows = [kernel for kernel in matrix() if kernel.kind in GPU_KINDS]
    rows.sort(key=lambda kernel: GPU_KINDS.index(kernel.kind))
    return [kernel for kernel in rows if runs_here(kernel)]


def library_at_hand(store: Store, kernel: Kernel) -> Path | None:
    """Return the kernel's library in the newest whole bundle of it, if one was built."""
    for folder in _bundles(store, kernel):
        try:
            tree = load_tree(store, store.find(folder.parent.name))
            library = checkout(store, tree, kernel.name) / kernel.library
        except IntegrityError:
            continue
        if library.is_file():
            return library
    return None


def _bundles(store: Store, kernel: Kernel) -> Iterator[Path]:
    """Yield the folders of bundles of the pinned llama.cpp with that kernel, the newest first."""
    found = []
    for folder in store.trees.glob(f"*/{kernel.name}"):
        if names.DIGEST.fullmatch(folder.parent.name):
            made_from = _made_from(folder / MADE_FROM)
            source = made_from.get("llama.cpp", {})
            if source.get("sha256") == current_pin().sha256 and kernel.name in made_from["kernels"]:
                found.append((folder.stat().st_mtime, folder))
    yield from (folder for _, folder in sorted(found, reverse=True))


def _made_from(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            value = json.loads(file.read(_LIMIT))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
