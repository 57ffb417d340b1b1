"""Which hub it is: the one that `HF_ENDPOINT` names, else the public one."""

from __future__ import annotations

import os
from typing import Final

PUBLIC_HUB: Final = "https://huggingface.co"


def hub_address(explicit: str | None = None) -> str:
    """Return the hub to use: the given one, `HF_ENDPOINT`, or the public one."""
    return (explicit or os.environ.get("HF_ENDPOINT") or PUBLIC_HUB).rstrip("/")


def shown_hub(address: str) -> str:
    """Return a hub's address as others may see it: without a name or password in it."""
    scheme, slashes, rest = address.rstrip("/").partition("://")
    host, slash, path = rest.partition("/")
    return scheme + slashes + host.rpartition("@")[2] + slash + path
