"""A small Hugging Face Hub on loopback, for the unmodified client, with faults to order.

    with Hub() as hub:
        repo = hub.add("org/name")
        first = repo.commit({"config.json": b"{}"})
        hub.faults.altered.add("model.safetensors")

Large files are kept as LFS and served by a second server, the CDN, as the real Hub does: the
client must not send its token there.  Every request is in `hub.log`.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

LFS = (".safetensors", ".gguf", ".bin", ".model")
BIG = 1 << 20


@dataclass(frozen=True)
class Seen:
    """One request as it came in."""

    server: str
    method: str
    path: str
    token: str | None
    range: str | None


@dataclass(frozen=True)
class Entry:
    """One file of a commit."""

    data: bytes
    is_lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def git_oid(self) -> str:
        data = self.data
        if self.is_lfs:
            data = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (
                self.sha256.encode(),
                len(self.data),
            )
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_lfs else self.git_oid


@dataclass
class Faults:
    """What goes wrong: names of files whose bytes are altered, or cut half way so many times;

    answers that come instead of the next ones: (status, headers), for paths that hold `part`.
    """

    altered: set[str] = field(default_factory=set)
    cut: Counter[str] = field(default_factory=Counter)
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    part: str = ""

    def refuse(self, status: int, times: int, part: str = "", **headers: str) -> None:
        self.part = part
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers += [(status, named)] * times


@dataclass
class Repo:
    """One repository: its commits, its branches and tags, and who may read it."""

    name: str
    gated: bool = False
    private: bool = False
    commits: dict[str, dict[str, Entry]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes] | Path, ref: str = "main") -> str:
        """Add a commit that holds exactly these files; return its 40 digits."""
        if isinstance(files, Path):
            files = {p.name: p.read_bytes() for p in sorted(files.iterdir()) if p.is_file()}
        entries = {
            name: Entry(data, name.endswith(LFS) or len(data) > BIG) for name, data in files.items()
        }
        listed = json.dumps([[n, e.git_oid] for n, e in entries.items()] + [len(self.commits)])
        sha = hashlib.sha1(f"{self.name} {listed}".encode()).hexdigest()
        self.commits[sha] = entries
        self.refs[ref] = sha
        return sha

    def at(self, revision: str) -> str | None:
        """Return the commit of a branch, a tag, `HEAD` or a commit."""
        revision = "main" if revision == "HEAD" else revision
        return self.refs.get(revision, revision if revision in self.commits else None)


class Hub:
    """Two servers on loopback: the Hub, and the CDN that its large files redirect to."""

    def __init__(self, tokens: tuple[str, ...] = ()) -> None:
        self.repos: dict[str, Repo] = {}
        self.tokens = frozenset(tokens)
        self.faults = Faults()
        self.log: list[Seen] = []
        self.lock = threading.Lock()
        self._servers = [_serve(self, HubPages), _serve(self, CdnPages)]
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

    def asked(self, part: str) -> list[Seen]:
        """Return the requests whose path holds `part`."""
        return [seen for seen in self.log if part in seen.path]


def _serve(hub: Hub, pages: type[Pages]) -> ThreadingHTTPServer:
    kind = type(pages.__name__, (pages,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class RefusedError(Exception):
    """An answer other than 200: status, the Hub's error code, a message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(status, code, message)
        self.status, self.code, self.message = status, code, message


class Pages(BaseHTTPRequestHandler):
    """What both servers share: the log, ordered faults, files with ranges."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    hub: Hub
    server_name = ""

    def log_message(self, *_: object) -> None:
        """Stay silent: `Hub.log` has it."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def route(self, path: str) -> None:
        raise NotImplementedError

    @property
    def token(self) -> str | None:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        seen = Seen(self.server_name, self.command, path, self.token, self.headers.get("Range"))
        with self.hub.lock:
            self.hub.log.append(seen)
            due = self.hub.faults.answers if self.hub.faults.part in path else []
            fault = due.pop(0) if due else None
        try:
            if fault is not None:
                self.send(fault[0], b"{}", fault[1])
            else:
                self.route(path)
        except RefusedError as refused:
            body = json.dumps({"error": refused.message}).encode()
            named = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
            self.send(refused.status, body, named)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_json(self, value: object) -> None:
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def send_file(self, name: str, entry: Entry, headers: Mapping[str, str]) -> None:
        data, faults = entry.data, self.hub.faults
        if name in faults.altered and data:
            middle = len(data) // 2
            data = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        named = {"Accept-Ranges": "bytes", **headers}
        if found is None or self.command == "HEAD":
            self._send_body(name, 200, data, named)
            return
        first, last = int(found[1]), min(int(found[2] or len(data) - 1), len(data) - 1)
        named["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        self._send_body(name, 206, data[first : last + 1], named)

    def _send_body(self, name: str, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        with self.hub.lock:
            is_cut = self.command == "GET" and self.hub.faults.cut[name] > 0
            self.hub.faults.cut[name] -= is_cut
        if not is_cut:
            self.send(status, body, headers)
            return
        self.send(status, body[: len(body) // 2], {"Content-Length": str(len(body)), **headers})
        self.wfile.flush()
        self.close_connection = True


class HubPages(Pages):
    """The Hub itself: facts of a repository, and its files."""

    server_name = "hub"

    def route(self, path: str) -> None:
        routes: tuple[tuple[str, Callable[..., None]], ...] = (
            (r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", self._info),
            (r"/api/models/([^/]+/[^/]+)/tree/([^/]+)/?", self._tree),
            (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._resolve),
        )
        for pattern, answer in routes:
            found = re.fullmatch(pattern, path)
            if found is not None:
                answer(*found.groups())
                return
        raise RefusedError(404, "EntryNotFound", f"no page {path}")

    def _find(self, name: str, revision: str | None) -> tuple[Repo, str]:
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and self.token not in self.hub.tokens):
            raise RefusedError(401, "RepoNotFound", "Repository not found")
        sha = repo.at(revision or "main")
        if sha is None:
            raise RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repo, sha

    def _info(self, name: str, revision: str | None) -> None:
        repo, sha = self._find(name, revision)
        siblings = [
            {"rfilename": path, "size": len(e.data), "blobId": e.git_oid, **_lfs(e, "sha256")}
            for path, e in repo.commits[sha].items()
        ]
        gated = "auto" if repo.gated else False
        self.send_json(
            {"id": name, "modelId": name, "sha": sha, "private": repo.private, "gated": gated,
             "disabled": False, "downloads": 0, "likes": 0, "tags": [], "siblings": siblings}
        )  # fmt: skip

    def _tree(self, name: str, revision: str) -> None:
        repo, sha = self._find(name, revision)
        rows = [
            {"type": "file", "path": path, "size": len(e.data), "oid": e.git_oid, **_lfs(e, "oid")}
            for path, e in repo.commits[sha].items()
        ]
        self.send_json(rows)

    def _resolve(self, name: str, revision: str, path: str) -> None:
        repo, sha = self._find(name, revision)
        if repo.gated and self.token not in self.hub.tokens:
            status = 403 if self.token else 401
            raise RefusedError(status, "GatedRepo", f"Access to model {name} is restricted")
        entry = repo.commits[sha].get(path)
        if entry is None:
            raise RefusedError(404, "EntryNotFound", f"{path} does not exist")
        headers = {"X-Repo-Commit": sha, "ETag": f'"{entry.etag}"'}
        if not entry.is_lfs:
            self.send_file(path, entry, headers)
            return
        headers |= {"X-Linked-Etag": f'"{entry.sha256}"', "X-Linked-Size": str(len(entry.data))}
        headers["Location"] = f"{self.hub.cdn_url}/{name}/{sha}/{path}"
        self.send(302, b"", headers)


class CdnPages(Pages):
    """Where large files lie: another origin, which must never see a token."""

    server_name = "cdn"

    def route(self, path: str) -> None:
        owner, name, sha, file = path.lstrip("/").split("/", 3)
        entry = self.hub.repos[f"{owner}/{name}"].commits[sha][file]
        self.send_file(file, entry, {"ETag": f'"{entry.sha256}"'})


def _lfs(entry: Entry, digest: str) -> dict[str, object]:
    if not entry.is_lfs:
        return {}
    return {"lfs": {digest: entry.sha256, "size": len(entry.data), "pointerSize": 134}}
