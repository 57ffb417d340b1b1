"""Fetching objects with known digests: in parts, resumed, from several origins, by tensor.

Names are loaded when they are used: the store's collection needs unfinished files (`partial`) and
nothing else of this, and goes without the packages that the rest needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from quantmint.registry.transfer.delta import local_file, plan
    from quantmint.registry.transfer.fetching import fetch, fetch_all
    from quantmint.registry.transfer.model import (
        Fetched,
        Item,
        Limits,
        LocalFile,
        Origin,
        Progress,
    )
    from quantmint.registry.transfer.partial import sweep_partials

__all__ = [
    "Fetched",
    "Item",
    "Limits",
    "LocalFile",
    "Origin",
    "Progress",
    "fetch",
    "fetch_all",
    "local_file",
    "plan",
    "sweep_partials",
]
_HOMES: Final = {
    "delta": ("local_file", "plan"),
    "fetching": ("fetch", "fetch_all"),
    "model": ("Fetched", "Item", "Limits", "LocalFile", "Origin", "Progress"),
    "partial": ("sweep_partials",),
}


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            found: object = getattr(import_module(f"{__name__}.{module}"), name)
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
