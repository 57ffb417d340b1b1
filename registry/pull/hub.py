"""A repository of the Hub, read only: lists in pages, small files, where large ones lie."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urljoin

from quantmint.errors import UserError
from quantmint.registry.pull.places import MOST_FILES, File, Listing, file_of, nonsense
from quantmint.registry.pull.reference import REPOSITORY
from quantmint.registry.pull.ways import Ways, Webs, webs_of
from quantmint.registry.pull.web import Web
from quantmint.registry.transfer import Origin, addresses

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_TAG: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}")
_NEXT: Final = re.compile(r'<([^<>]+)>\s*;\s*rel="next"')
_PAGE_LIMIT: Final = 8 << 20
_MOST_PAGES: Final = 64


@dataclass(frozen=True)
class HubPlace:
    """One repository of a hub, and of its mirrors."""

    webs: Webs
    repo: str

    @property
    def name(self) -> str:
        """What references and records call it."""
        return f"hub:{self.repo}"

    @property
    def owner(self) -> str | None:
        """The user or organization."""
        return self.repo.partition("/")[0]

    @property
    def asked(self) -> Web:
        """Who answers: the hub's own address, or a mirror while that can't be reached."""
        return self.webs.answering

    def listing(self, revision: str | None) -> Listing:
        """Return the files at a branch, a tag or a commit; all read at one commit, of one host."""
        return self.webs.ask(lambda web: self._listing(web, revision))

    def tags(self) -> tuple[str, ...]:
        """Return the names of its tags."""

        def named(value: Any) -> tuple[str, ...]:  # noqa: ANN401
            found = [row["name"] for row in value["tags"]]
            return tuple(name for name in found[:MOST_FILES] if _TAG.fullmatch(name))

        return self.webs.ask(lambda web: web.json(f"{self._api(web)}/refs", _PAGE_LIMIT, named))

    def read(self, listing: Listing, path: str, limit: int) -> bytes:
        """Return the bytes of a small file."""
        return self.webs.ask(lambda web: web.get(self._address(web, listing, path), limit).body)

    def part(self, listing: Listing, path: str, start: int, count: int) -> bytes:
        """Return some bytes of a file."""
        return self.webs.ask(
            lambda web: web.part(self._address(web, listing, path), start, count)
        )  # fmt: skip

    def origins(self, listing: Listing) -> tuple[Origin, ...]:
        """Return where the transfer finds the files of a commit."""
        return self.webs.origins(f"{self.repo}/resolve/{listing.commit}")

    def _listing(self, web: Web, revision: str | None) -> Listing:
        asked = quote(revision or "main", safe="")
        commit = web.json(f"{self._api(web)}/revision/{asked}", _PAGE_LIMIT, _commit_of)
        files: dict[str, File] = {}
        skipped = 0
        for row in self._rows(web, f"{self._api(web)}/tree/{commit}?recursive=true"):
            if not isinstance(row, dict) or row.get("type") != "file":
                continue
            try:
                lfs = row.get("lfs") or {}
                file = file_of(row.get("path"), row.get("size"), lfs.get("oid"), row.get("oid"))
            except (ValueError, AttributeError) as error:
                raise nonsense(self.name, str(error)[:120]) from None
            if file is None or file.path in files:
                skipped += str(row.get("path")).lower().endswith(".gguf")
            else:
                files[file.path] = file
        mirror = None if web is self.webs.own else web.name
        return Listing(commit=commit, files=files, skipped=skipped, mirror=mirror)

    def _api(self, web: Web) -> str:
        return f"{web.base}/api/models/{self.repo}"

    def _address(self, web: Web, listing: Listing, path: str) -> str:
        return f"{web.base}/{self.repo}/resolve/{listing.commit}/{quote(path)}"

    def _rows(self, web: Web, url: str) -> Iterator[object]:
        count = 0
        for _ in range(_MOST_PAGES):
            reply = web.get(url, _PAGE_LIMIT)
            for row in _list_of(reply.body, self.name):
                count += 1
                if count > MOST_FILES:
                    raise nonsense(self.name, f"more than {MOST_FILES} files")
                yield row
            found = _NEXT.search(reply.headers.get("Link", ""))
            if found is None:
                return
            url = urljoin(url, found[1])
            try:
                same = addresses.place(url) == addresses.place(web.base)
            except ValueError:
                same = False
            if not same:  # the token would go along
                raise nonsense(self.name, "its list of files goes on at another host")
        raise nonsense(self.name, f"more than {_MOST_PAGES} pages of files")


def hub_place(
    repo: str, ways: Ways | None = None, *, endpoint: str | None = None, token: str | None = None
) -> HubPlace:
    """Return a repository `owner/name` of the hub that `HF_ENDPOINT` names, and of its mirrors.

    Raises:
        UserError: the address or the token is malformed.
    """
    return HubPlace(webs_of(ways, endpoint=endpoint, token=token), repo)


def search(owner: str, model: str, ways: Ways | None = None) -> list[str]:
    """Return an owner's repositories that are named after a model: `owner/Model-GGUF`.

    Raises:
        RegistryError, UserError: see `Web.get`.
    """
    author = f"/api/models?author={quote(owner, safe='')}"
    wanted = {f"{owner}/{model}-gguf".casefold(), f"{owner}/{model}".casefold()}

    def named(value: Any) -> list[str]:  # noqa: ANN401
        ids = [row["id"] for row in value]
        return [one for one in ids if one.casefold() in wanted and REPOSITORY.fullmatch(one)]

    def found(web: Web) -> list[str]:
        asked = f"{web.base}{author}&search={quote(model, safe='')}&limit=100"
        # Not every server's search is blind to case.
        return web.json(asked, _PAGE_LIMIT, named) or web.json(
            f"{web.base}{author}&limit=1000", _PAGE_LIMIT, named
        )

    rows = webs_of(ways).ask(found)
    return sorted(rows, key=lambda one: (not one.casefold().endswith("-gguf"), one))


def _commit_of(value: Any) -> str:  # noqa: ANN401
    sha = value["sha"]
    if not isinstance(sha, str) or _COMMIT.fullmatch(sha) is None:
        raise ValueError("the commit")
    return sha


def _list_of(body: bytes, name: str) -> list[object]:
    import json

    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, list):
        raise nonsense(name, "no list of files")
    return value


def require_online(what: str) -> None:
    """Refuse to ask the network where the environment forbids it.

    Raises:
        UserError: `QUANTMINT_OFFLINE` or `HF_HUB_OFFLINE` is set.
    """
    variable = offline()
    if variable is not None:
        raise UserError(
            f"{what} is not on this machine, and {variable} forbids to ask for it",
            mend=f"unset {variable}, and run again",
        )


def offline() -> str | None:
    """Return the variable that forbids the network, if one does."""
    import os

    yes = {"1", "on", "true", "yes"}
    named = ("QUANTMINT_OFFLINE", "HF_HUB_OFFLINE")
    return next((name for name in named if os.environ.get(name, "").lower() in yes), None)
