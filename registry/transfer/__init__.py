"""Fetching objects with known digests: in parts, resumed, from several origins, by tensor."""

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
