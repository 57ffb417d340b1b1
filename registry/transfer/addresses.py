"""Which address may be asked what: origins, redirects, tokens, and times to wait."""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import quote, urljoin, urlsplit

from quantmint.errors import UserError
from quantmint.registry.transfer.model import Item, Origin

MOST_REDIRECTS: Final = 5
_PORTS: Final = {"http": 80, "https": 443}


def place(url: str) -> tuple[str, str, int]:
    """Return the scheme, host and port of an address: what browsers call its origin.

    Raises:
        ValueError: it is no address of http or https, or it holds a name and password.
    """
    split = urlsplit(url)
    if split.scheme not in _PORTS or not split.hostname or "@" in split.netloc:
        raise ValueError("no plain http or https address")
    return split.scheme, split.hostname.lower(), split.port or _PORTS[split.scheme]


def shown(url: str) -> str:
    """Return an address for people, without its query: signed addresses carry secrets there."""
    try:
        scheme, host, port = place(url)
    except ValueError:
        return "an address that is none"
    return f"{scheme}://{host}" + ("" if port == _PORTS[scheme] else f":{port}")


def address(origin: Origin, item: Item) -> str:
    """Return where an origin serves an item.

    Raises:
        UserError: the origin's address can't be used.
    """
    try:
        scheme, host, _ = place(origin.base)
    except ValueError:
        raise UserError(
            f"{no_secret(origin.base)} is no origin: https://..., http://... or file:FOLDER",
            mend="check the registry's address; a token goes to HF_TOKEN, not into it",
        ) from None
    if origin.token is not None and scheme == "http" and not is_loopback(host):
        raise UserError(
            f"a token would go to {host} in the clear: {shown(origin.base)} has no https",
            mend="use its https address, or pull without a token",
        )
    return f"{origin.base.rstrip('/')}/{quote(origin.path(item))}"


def no_secret(base: str) -> str:
    """Return what was given as an address, for people: not if a password could be in it."""
    return "an address with a name or password in it" if "@" in base else repr(base[:80])


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, by its name alone: nobody is asked."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def refuse_unsafe(base: str, *, has_token: bool) -> None:
    """Refuse an address to which nothing secret may go.

    Raises:
        UserError: it is no plain address, holds a password, or would get a token in the clear.
    """
    try:
        scheme, host, _ = place(base)
    except ValueError:
        raise UserError(
            f"{no_secret(base)} is no address of a registry",
            mend="set HF_ENDPOINT to https://...; a token goes to HF_TOKEN, not into it",
        ) from None
    if has_token and scheme == "http" and not is_loopback(host):
        raise UserError(
            f"a token would go to {host} in the clear: {base} has no https",
            mend="use its https address, or do without a token",
        )


def redirected(url: str, location: str) -> str | None:
    """Return where a redirect leads; None if it may not be followed.

    To https always; to http only from http on the same host, or within this machine: an address
    on the network can't send us to a service that listens here only.
    """
    try:
        target = urljoin(url, location)
        scheme, host, _ = place(target)
        from_scheme, from_host, _ = place(url)
    except ValueError:
        return None
    if is_loopback(host):
        return target if is_loopback(from_host) and from_scheme == "http" else None
    if scheme == "https":
        return target
    return target if from_scheme == "http" and host == from_host else None
