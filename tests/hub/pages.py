"""What both origins share: the log, faults, bodies, ranges, and a table of pages."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from .content import Entry

if TYPE_CHECKING:
    from .server import Hub


@dataclass(frozen=True)
class Seen:
    """One request as it came in; `received` counts the bytes of its body."""

    server: str
    method: str
    path: str
    token: str | None
    range: str | None
    received: int


class RefusedError(Exception):
    """An answer other than 200: status, the Hub's error code, a message, further JSON."""

    def __init__(self, status: int, code: str, message: str, **more: object) -> None:
        super().__init__(status, code, message)
        self.status, self.code, self.message, self.more = status, code, message, more


Answer = Callable[..., None]


class Table:
    """Pages by method and path; a path is matched as it was quoted."""

    def __init__(self) -> None:
        self.rows: list[tuple[frozenset[str], re.Pattern[str], Answer]] = []

    def page(self, methods: str, pattern: str) -> Callable[[Answer], Answer]:
        """Register a page: `REPO`, `REV` and `HEX` stand for what they say.

        A data set is a repository like any other, below another word.
        """
        pattern = pattern.replace("/api/models/REPO", "/api/(?:models|datasets)/REPO")
        pattern = re.sub("^/REPO", "/(?:datasets/)?REPO", pattern)
        for short, full in (("REPO", "([^/]+/[^/]+)"), ("REV", "([^/]+)"), ("HEX", "([0-9a-f]+)")):
            pattern = pattern.replace(short, full)

        def keep(answer: Answer) -> Answer:
            self.rows.append((frozenset(methods.split()), re.compile(pattern), answer))
            return answer

        return keep

    def answer(self, pages: Pages, path: str) -> None:
        method = "GET" if pages.command == "HEAD" else pages.command
        for methods, pattern, answer in self.rows:
            found = pattern.fullmatch(path)
            if found is not None and method in methods:
                answer(pages, *(unquote(g) if g is not None else None for g in found.groups()))
                return
        raise RefusedError(404, "EntryNotFound", f"no page {method} {path}")


class Pages(BaseHTTPRequestHandler):
    """One request to either origin."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = 60
    hub: Hub
    table: Table
    server_name = ""
    body = b""
    mute = False

    def log_message(self, *_: object) -> None:
        """Stay silent: `Hub.log` has it."""

    def _answer(self) -> None:
        split = urlsplit(self.path)
        path = unquote(split.path)
        self.query = {name: values[-1] for name, values in parse_qs(split.query).items()}
        fault = self.hub.faults.due(self.command, path)
        # What is never read is never answered: the client sees a connection reset.
        self.body = b"" if fault is not None and fault.kind == "drop" else self._read_body()
        seen = Seen(
            self.server_name, self.command, path, self.token, self.headers.get("Range"),
            len(self.body),
        )  # fmt: skip
        try:
            self.hub.note(seen)
            if fault is not None and fault.kind == "drop":
                self.close_connection = True
                return
            if fault is not None and fault.kind == "slow":
                time.sleep(fault.seconds)
            self.mute = fault is not None and fault.kind == "lose"
            if fault is not None and fault.kind == "refuse":
                self.send(fault.status, b'{"error": "ordered"}', fault.headers)
            else:
                self.table.answer(self, split.path)
        except RefusedError as refused:
            body = json.dumps({"error": refused.message, **refused.more}).encode()
            named = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
            self.send(refused.status, body, {k: v for k, v in named.items() if v})
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_HEAD = do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815

    @property
    def token(self) -> str | None:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    @property
    def json(self) -> Any:
        """The body as JSON.

        Raises:
            RefusedError: it is none.
        """
        try:
            return json.loads(self.body or b"{}")
        except ValueError:
            raise RefusedError(400, "", "the body is no JSON") from None

    def _read_body(self) -> bytes:
        if "chunked" not in (self.headers.get("Transfer-Encoding") or ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    def send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        if self.mute:
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_json(self, value: object, headers: Mapping[str, str] | None = None) -> None:
        kind = {"Content-Type": "application/json"}
        self.send(200, json.dumps(value).encode(), {**kind, **(headers or {})})

    def send_file(self, name: str, entry: Entry, headers: Mapping[str, str]) -> None:
        data = entry.data
        if name in self.hub.faults.altered and data:
            middle = len(data) // 2
            data = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        named = {"Accept-Ranges": "bytes", **headers}
        if found is None or self.command == "HEAD":
            self._send_body(name, 200, data, named)
            return
        first, last = int(found[1]), min(int(found[2] or len(data) - 1), len(data) - 1)
        if first >= len(data):
            self.send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            return
        named["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        self._send_body(name, 206, data[first : last + 1], named)

    def _send_body(self, name: str, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        is_cut = self.command == "GET" and self.hub.faults.cut_now(name)
        if self.command == "GET":
            with self.hub.lock:
                self.hub.sent[name] += len(body) // 2 if is_cut else len(body)
        if not is_cut:
            self.send(status, body, headers)
            return
        self.send(status, body[: len(body) // 2], {"Content-Length": str(len(body)), **headers})
        self.wfile.flush()
        self.close_connection = True
