"""A registry that lies: the Hub's few pages that a puller reads, each of which can be replaced.

`pace` says of a path how many seconds pass before each 16 KiB, by the bytes that were sent; less
than none cuts the connection.

with Evil() as evil:
    evil.files = release_files
    evil.pages["/quantmint.dsse.json"] = endless(b"x")
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

COMMIT = "c0" * 20
_PIECE = 1 << 14
Answer = tuple[int, dict[str, str], bytes | Iterator[bytes]]


def answer(body: bytes | str, status: int = 200, **headers: str) -> Callable[[], Answer]:
    """Return a page with that body; `Content_Length="5"` becomes a header."""
    data = body.encode() if isinstance(body, str) else body
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda: (status, named, data)


def endless(chunk: bytes) -> Callable[[], Answer]:
    """Return a page that never ends."""

    def forever() -> Iterator[bytes]:
        while True:
            yield chunk * 65536

    return lambda: (200, {}, forever())


class Evil:
    """One origin on loopback; `pages` maps the end of a path to what is answered instead."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.rows: list[dict[str, Any]] | None = None
        self.pages: dict[str, Callable[[], Answer]] = {}
        self.commit: object = COMMIT
        self.revisions: dict[str, dict[str, bytes]] = {}
        self.tokens: list[str | None] = []
        self.paths: list[str] = []
        self.ranges: list[tuple[str, str | None]] = []
        self.pace: Callable[[str, int], float] = lambda _path, _sent: 0.0
        kind = type("EvilPages", (_Pages,), {"evil": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def listed(self) -> list[dict[str, Any]]:
        """Return the files as the Hub lists them."""
        if self.rows is not None:
            return self.rows
        return [row(path, data) for path, data in self.files.items()]


def row(path: str, data: bytes, **own: Any) -> dict[str, Any]:
    """Return one file as the Hub lists it; large ones with their sha256."""
    oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    found: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": oid}
    if path.endswith(".gguf"):
        found["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data)}
    return {**found, **own}


class _Pages(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    evil: Evil

    def log_message(self, *_: object) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        evil = self.evil
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        evil.tokens.append(token)
        evil.paths.append(self.path)
        evil.ranges.append((self.path, self.headers.get("Range")))
        path = self.path.partition("?")[0]
        page = next((p for end, p in evil.pages.items() if path.endswith(end)), None)
        status, headers, body = page() if page else self._honest(path)
        with suppress(BrokenPipeError, ConnectionResetError):
            self._send(status, headers, body)

    def _honest(self, path: str) -> Answer:
        evil = self.evil
        if "/revision/" in path:
            revision = path.rpartition("/")[2]
            evil.files = evil.revisions.get(revision, evil.files)
            return 200, {}, json.dumps({"sha": evil.commit}).encode()
        if "/tree/" in path:
            return 200, {}, json.dumps(evil.listed()).encode()
        name = path.partition(f"/resolve/{COMMIT}/")[2]
        if name not in evil.files:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        data, span = evil.files[name], self.headers.get("Range")
        if span is None:
            return 200, {}, data
        first, _, last = span.removeprefix("bytes=").partition("-")
        part = data[int(first) : int(last) + 1]
        ends = int(first) + len(part) - 1
        return 206, {"Content-Range": f"bytes {first}-{ends}/{len(data)}"}, part

    def _send(self, status: int, headers: dict[str, str], body: bytes | Iterator[bytes]) -> None:
        self.send_response(status)
        if isinstance(body, bytes):
            headers = {"Content-Length": str(len(body)), **headers}
        else:
            headers = {**headers, "Connection": "close"}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        sent = 0
        for chunk in _pieces(body) if isinstance(body, bytes) else body:
            wait = self.evil.pace(self.path, sent)
            if wait < 0:
                self.close_connection = True
                return
            time.sleep(wait)
            self.wfile.write(chunk)
            sent += len(chunk)
        if not isinstance(body, bytes) or int(headers["Content-Length"]) != len(body):
            self.close_connection = True


def _pieces(body: bytes) -> list[bytes]:
    return [body[at : at + _PIECE] for at in range(0, len(body), _PIECE)] or [b""]
