"""Asking our own servers: never through a proxy, whatever the environment says of proxies."""

from __future__ import annotations

import urllib.request
from http.client import HTTPResponse
from typing import cast


def ask(request: str | urllib.request.Request, seconds: float) -> HTTPResponse:
    """Return the answer of a server on this machine.

    Raises:
        OSError: it does not answer, or with an error.
    """
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return cast("HTTPResponse", direct.open(request, timeout=seconds))
