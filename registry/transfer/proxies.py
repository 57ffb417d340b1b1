"""The proxies that the environment names: one that can't be used is said before anybody is asked.

A proxy's address may hold a name and a password, so nothing of it is shown but its scheme.
"""

from __future__ import annotations

import importlib.util
import os
import re
from typing import Final
from urllib.request import getproxies

from quantmint.errors import UserError

_VARIABLES: Final = {"http": "HTTP_PROXY", "https": "HTTPS_PROXY", "all": "ALL_PROXY"}
_SCHEMES: Final = {"http", "https", "socks5", "socks5h"}
_SCHEME: Final = re.compile("[a-z][a-z0-9+.-]{0,15}")


def refuse_unusable() -> None:
    """Look at `HTTP_PROXY`, `HTTPS_PROXY` and `ALL_PROXY` as the HTTP client will.

    Raises:
        UserError: one of them is no proxy that it can speak to.
    """
    named = getproxies()
    # `NO_PROXY=*` switches them all off.
    if "*" in {host.strip() for host in named.get("no", "").split(",")}:
        return
    for kind, upper in _VARIABLES.items():
        value = named.get(kind)
        fault = _fault(value) if value else None
        if value and fault is not None:
            what, mend = fault
            name = _variable(upper, value)
            raise UserError(
                f"the proxy in {name} can't be used: {what}", mend=mend.format(name=name)
            )


def _fault(value: str) -> tuple[str, str] | None:
    import httpx2

    mend = "set {name} to http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT, or unset it"
    text = value if "://" in value else f"http://{value}"
    scheme = text.partition("://")[0].lower()
    if scheme not in _SCHEMES:
        shown = repr(scheme) if _SCHEME.fullmatch(scheme) else "what its address begins with"
        return f"{shown} is no kind of proxy that is known here", mend
    try:
        host = httpx2.Proxy(text).url.host
    except (ValueError, httpx2.InvalidURL):
        return "it is no address", mend
    if not host:
        return "it names no host", mend
    if scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        return "the package socksio is missing", "pip install socksio"
    return None


def _variable(upper: str, value: str) -> str:
    """Return the name under which the environment holds it: small letters count first."""
    names = (upper.lower(), upper, *os.environ)
    holders = [one for one in names if one.upper() == upper and os.environ.get(one) == value]
    return (holders or [upper])[0]
