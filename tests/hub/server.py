"""The two origins on loopback, and everything that they know."""

from __future__ import annotations

import secrets
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from http.server import ThreadingHTTPServer
from types import TracebackType
from typing import Self

from .content import ATTRIBUTES, Entry, Repo
from .faults import Faults
from .pages import Pages, RefusedError, Seen
from .xet import Cas

USER, ORGS = "tester", ("org", "team", "my-org")


class Hub:
    """The Hub, and the CDN that its large files redirect to.

    `tokens` are accepted with the role `write`; a mapping gives each its role: `write`, `read` or
    `expired`. Without tokens everybody may write.
    """

    def __init__(
        self, tokens: tuple[str, ...] | Mapping[str, str] = (), port: int = 0, cdn_port: int = 0
    ) -> None:
        from .large import CdnPages
        from .reading import HubPages

        self.repos: dict[str, Repo] = {}
        self.tokens = (
            dict(tokens) if isinstance(tokens, Mapping) else dict.fromkeys(tokens, "write")
        )
        self.faults = Faults()
        self.log: list[Seen] = []
        self.lock = threading.RLock()
        self.large: dict[str, Entry] = {}  # by sha256: what commits may name
        self.cas = Cas(self.large, "xet-" + secrets.token_hex(8))
        self.has_xet = True
        self.multipart_from = 64 << 20
        self.parts: dict[str, dict[int, bytes]] = {}
        self.page_size = 1000
        self.kept = 0
        self.sent: Counter[str] = Counter()  # bytes of each file, and of each `xorb/...`
        self.on_request: Callable[[Seen], None] = lambda _: None
        self.collections: dict[str, dict[str, object]] = {}
        self._servers = [_serve(self, HubPages, port), _serve(self, CdnPages, cdn_port)]
        self.url, self.cdn_url = (f"http://127.0.0.1:{s.server_port}" for s in self._servers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def add(self, name: str, *, gated: bool = False, private: bool = False) -> Repo:
        """Add an empty repository `owner/name`."""
        self.repos[name] = Repo(name, gated, private)
        return self.repos[name]

    def create(self, name: str, *, private: bool = False) -> Repo:
        """Add a repository as the Hub's own page would: with a first commit."""
        repo = self.add(name, private=private)
        repo.record({".gitattributes": Entry(ATTRIBUTES, is_lfs=False)}, "main", "initial commit")
        return repo

    def asked(self, part: str) -> list[Seen]:
        """Return the requests whose path holds `part`."""
        return [seen for seen in self.log if part in seen.path]

    def uploaded(self) -> int:
        """Return the bytes of large files that came in and were kept, by either way."""
        return self.kept

    def note(self, seen: Seen) -> None:
        with self.lock:
            self.log.append(seen)
        self.on_request(seen)

    def role(self, token: str | None) -> str | None:
        """Return what that token may do; None for nobody.

        Raises:
            RefusedError: it is unknown or has expired.
        """
        if not self.tokens:
            return "write"
        if token is None:
            return None
        role = self.tokens.get(token)
        if role in {None, "expired"}:
            raise RefusedError(401, "", "Invalid credentials in Authorization header")
        return role

    def may_write(self, token: str | None, owner: str | None = None) -> None:
        """Refuse whoever may not write, or not below that owner.

        Raises:
            RefusedError: 401 without a token, 403 with the wrong one.
        """
        role = self.role(token)
        if role is None:
            raise RefusedError(401, "", "Invalid username or password.")
        if role != "write" or owner not in {None, USER, *ORGS}:
            raise RefusedError(
                403, "", "You don't have the rights to write here: use a token with write access"
            )


def _serve(hub: Hub, pages: type[Pages], port: int) -> ThreadingHTTPServer:
    kind = type(pages.__name__, (pages,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", port), kind)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server
