"""How a hub is asked: its own address and its mirrors, in turn, at which rate.

A mirror gets no token. What it lists is judged like any other place's word: a signed release by
its signature, and by what was seen before; the rest is its word alone, and told as such.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

from quantmint.errors import QuantmintError, RegistryError, UserError
from quantmint.registry.hub_address import hub_address
from quantmint.registry.publish.trouble import token_from
from quantmint.registry.pull import web
from quantmint.registry.pull.web import UnreachableError, Web
from quantmint.registry.transfer import Origin, addresses

T = TypeVar("T")
MIRRORS: Final = "QUANTMINT_MIRRORS"
# Who may not be there at all has so many tries before the next one is asked.
_TRIES: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """Mirrors beside a hub's own address, and a cap on bytes per second.

    `hubs` are addresses that serve what the hub does, `folders` hold files alone. `named` says
    that a person named them for this pull: what does not fit is refused then, else left out.
    """

    hubs: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    rate: float | None = None
    named: bool = True

    @classmethod
    def of(cls, mirrors: Sequence[str] = (), rate: float | None = None) -> Ways:
        """Return the ways of these mirrors; without any, of those in `QUANTMINT_MIRRORS`.

        Raises:
            UserError: one is neither an address nor a folder.
        """
        given = list(mirrors) or re.split(r"[\s,]+", os.environ.get(MIRRORS, "").strip(" ,\t\n"))
        hubs, folders = [], []
        for each in filter(None, given):
            if each.startswith("file:"):
                folders.append("file:" + str(Path(each[5:]).expanduser().absolute()))
            else:
                hubs.append(_address(each))
        return cls(hubs=tuple(hubs), folders=tuple(folders), rate=rate, named=bool(mirrors))

    def origins(self) -> list[Origin]:
        """Return the folders as the transfer asks them."""
        return [Origin(folder) for folder in self.folders]

    def refuse_for(self, place: str) -> None:
        """Refuse mirrors of a hub that were named for what is none.

        Raises:
            UserError: there are such.
        """
        if self.named and self.hubs:
            raise UserError(
                f"{addresses.shown(self.hubs[0])} can mirror a hub's repository, and {place} is"
                " none",
                mend="name a folder: --mirror file:DIR",
            )


@dataclass
class Webs:
    """A hub's own address, and its mirrors: asked in turn where one can't be reached."""

    own: Web
    mirrors: tuple[Web, ...] = ()
    answering: Web = field(init=False)

    def __post_init__(self) -> None:
        self.answering = self.own

    def ask(self, read: Callable[[Web], T]) -> T:
        """Return what `read` gets from the first that answers, beginning with who did before.

        Only where the hub's own address can't be reached a mirror is asked: a hub that says no
        has answered. A mirror that says no is none of this repository.

        Raises:
            as `read`: what the hub's own address said, and what the mirrors did.
        """
        if not self.mirrors:
            return read(self.own)
        errors: dict[int, QuantmintError] = {}
        left = sorted((self.own, *self.mirrors), key=lambda one: one is not self.answering)
        for one in [*left, *left]:
            before = errors.get(id(one))
            if before is not None and not isinstance(before, UnreachableError):
                continue
            try:
                found = read(one)
            except UnreachableError as error:
                errors[id(one)] = error
            except (RegistryError, UserError) as error:
                if one is self.own:
                    raise
                errors[id(one)] = error
            else:
                self.answering = one
                return found
        first = errors[id(self.own)]
        more = "; ".join(errors[id(one)].what for one in self.mirrors)
        raise type(first)(f"{first.what}; its mirrors: {more}", mend=first.mend)

    def origins(self, path: str) -> tuple[Origin, ...]:
        """Return where the transfer finds what lies below a path, the best first."""
        found = sorted((self.own, *self.mirrors), key=lambda one: one is not self.answering)
        return tuple(Origin(f"{one.base}/{path}", one.token) for one in found)


def webs_of(ways: Ways | None, *, endpoint: str | None = None, token: str | None = None) -> Webs:
    """Return the hub that `HF_ENDPOINT` names, with its token, and its mirrors without.

    Raises:
        UserError: an address or the token is malformed.
    """
    ways = ways or Ways.of()
    limits = replace(web.PATIENCE, rate=ways.rate)
    base = hub_address(endpoint)
    hubs = [hub for hub in dict.fromkeys(ways.hubs) if hub != base]
    if hubs:
        limits = replace(limits, tries=min(limits.tries, _TRIES))
    own = Web(base, token_from(token), limits)
    return Webs(own, tuple(Web(hub, None, limits) for hub in hubs))


def _address(mirror: str) -> str:
    try:
        addresses.place(mirror)
    except ValueError:
        raise UserError(
            f"{addresses.no_secret(mirror)} is no mirror", mend="write https://HOST or file:DIR"
        ) from None
    return mirror.rstrip("/")
