"""A repository of the Hub, read only: lists in pages, small files, where large ones lie."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urljoin

from quantmint.errors import UserError
from quantmint.registry.hub_address import hub_address
from quantmint.registry.publish.trouble import token_from
from quantmint.registry.pull.places import MOST_FILES, File, Listing, file_of, nonsense
from quantmint.registry.pull.reference import REPOSITORY
from quantmint.registry.pull.web import Web
from quantmint.registry.transfer import Origin, addresses

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_TAG: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}")
_NEXT: Final = re.compile(r'<([^<>]+)>\s*;\s*rel="next"')
_PAGE_LIMIT: Final = 8 << 20
_MOST_PAGES: Final = 64


@dataclass(frozen=True)
class HubPlace:
    """One repository of a hub."""

    web: Web
    repo: str

    @property
    def name(self) -> str:
        """What references and records call it."""
        return f"hub:{self.repo}"

    @property
    def owner(self) -> str | None:
        """The user or organization."""
        return self.repo.partition("/")[0]

    def listing(self, revision: str | None) -> Listing:
        """Return the files at a branch, a tag or a commit; all read at one commit."""
        asked = quote(revision or "main", safe="")
        commit = self.web.json(f"{self._api}/revision/{asked}", _PAGE_LIMIT, _commit_of)
        files: dict[str, File] = {}
        skipped = 0
        for row in self._rows(f"{self._api}/tree/{commit}?recursive=true"):
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
        return Listing(commit=commit, files=files, skipped=skipped)

    def tags(self) -> tuple[str, ...]:
        """Return the names of its tags."""

        def named(value: Any) -> tuple[str, ...]:  # noqa: ANN401
            found = [row["name"] for row in value["tags"]]
            return tuple(name for name in found[:MOST_FILES] if _TAG.fullmatch(name))

        return self.web.json(f"{self._api}/refs", _PAGE_LIMIT, named)

    def read(self, listing: Listing, path: str, limit: int) -> bytes:
        """Return the bytes of a small file."""
        return self.web.get(self._address(listing, path), limit).body

    def head(self, listing: Listing, path: str, size: int) -> bytes:
        """Return the first bytes of a file."""
        return self.web.get(self._address(listing, path), size, first=size).body

    def origin(self, listing: Listing) -> Origin:
        """Return where the transfer finds the files of a commit."""
        return Origin(f"{self.web.base}/{self.repo}/resolve/{listing.commit}", self.web.token)

    @property
    def _api(self) -> str:
        return f"{self.web.base}/api/models/{self.repo}"

    def _address(self, listing: Listing, path: str) -> str:
        return f"{self.web.base}/{self.repo}/resolve/{listing.commit}/{quote(path)}"

    def _rows(self, url: str) -> Iterator[object]:
        count = 0
        for _ in range(_MOST_PAGES):
            reply = self.web.get(url, _PAGE_LIMIT)
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
                same = addresses.place(url) == addresses.place(self.web.base)
            except ValueError:
                same = False
            if not same:  # the token would go along
                raise nonsense(self.name, "its list of files goes on at another host")
        raise nonsense(self.name, f"more than {_MOST_PAGES} pages of files")


def hub_place(repo: str, *, endpoint: str | None = None, token: str | None = None) -> HubPlace:
    """Return a repository `owner/name` of the hub that `HF_ENDPOINT` names.

    Raises:
        UserError: the address or the token is malformed.
    """
    return HubPlace(Web(hub_address(endpoint), token_from(token)), repo)


def search(owner: str, model: str) -> list[str]:
    """Return an owner's repositories that are named after a model: `owner/Model-GGUF`.

    Raises:
        RegistryError, UserError: see `Web.get`.
    """
    web = Web(hub_address(None), token_from(None))
    author = f"{web.base}/api/models?author={quote(owner, safe='')}"
    wanted = {f"{owner}/{model}-gguf".casefold(), f"{owner}/{model}".casefold()}

    def named(value: Any) -> list[str]:  # noqa: ANN401
        ids = [row["id"] for row in value]
        return [one for one in ids if one.casefold() in wanted and REPOSITORY.fullmatch(one)]

    found = web.json(f"{author}&search={quote(model, safe='')}&limit=100", _PAGE_LIMIT, named)
    if not found:  # not every server's search is blind to case
        found = web.json(f"{author}&limit=1000", _PAGE_LIMIT, named)
    return sorted(found, key=lambda one: (not one.casefold().endswith("-gguf"), one))


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
