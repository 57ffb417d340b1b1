"""The Hub's pages that answer what there is: repositories, trees, refs, files."""

from __future__ import annotations

from urllib.parse import parse_qs, quote

from .content import Commit, Entry, Repo
from .pages import Pages, RefusedError, Table
from .server import ORGS, USER

TABLE = Table()
page = TABLE.page
DATE = "2026-01-01T00:00:00.000Z"


class HubPages(Pages):
    """The Hub itself."""

    server_name = "hub"
    table = TABLE

    def find(self, name: str, revision: str | None = None) -> tuple[Repo, Commit]:
        """Return a repository and one commit of it.

        Raises:
            RefusedError: there is none, or it is hidden from whoever asks.
        """
        role = self.hub.role(self.token)
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and role is None):
            raise RefusedError(404 if role else 401, "RepoNotFound", "Repository not found")
        sha = repo.at(revision or "main")
        if sha is None:
            raise RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repo, repo.commits[sha]


@page("GET", "/api/whoami-v2")
def whoami(pages: HubPages) -> None:
    role = pages.hub.role(pages.token)
    if role is None:
        raise RefusedError(401, "", "Invalid username or password.")
    orgs = [{"type": "org", "name": name, "fullname": name} for name in ORGS]
    token = {"displayName": "test", "role": role}
    pages.send_json(
        {"type": "user", "name": USER, "fullname": USER, "email": "t@example.org",
         "orgs": orgs, "auth": {"type": "access_token", "accessToken": token}}
    )  # fmt: skip


@page("GET", "/api/models/?")
def models(pages: HubPages) -> None:
    wanted = pages.query.get("search", ""), pages.query.get("author", "")
    found = [
        _info(repo, repo.commits[repo.branches["main"]])
        for name, repo in sorted(pages.hub.repos.items())
        if wanted[0] in name and name.startswith(wanted[1]) and "main" in repo.branches
        and not repo.private
    ]  # fmt: skip
    pages.send_json(found)


@page("GET", "/api/models/REPO(?:/revision/REV)?")
def info(pages: HubPages, name: str, revision: str | None) -> None:
    pages.send_json(_info(*pages.find(name, revision)))


def _info(repo: Repo, commit: Commit) -> dict[str, object]:
    siblings = [
        {"rfilename": path, "size": len(e.data), "blobId": e.git_oid, **_lfs(e, "sha256")}
        for path, e in commit.files.items()
    ]
    return {
        "id": repo.name, "modelId": repo.name, "author": repo.name.partition("/")[0],
        "sha": commit.sha, "lastModified": DATE, "createdAt": DATE, "private": repo.private,
        "gated": "auto" if repo.gated else False, "disabled": False, "downloads": 0, "likes": 0,
        "tags": [], "siblings": siblings,
    }  # fmt: skip


@page("GET", "/api/models/REPO/auth-check(/write)?")
def auth_check(pages: HubPages, name: str, write: str | None) -> None:
    repo, _ = pages.find(name)
    if write:
        pages.hub.may_write(pages.token, name.partition("/")[0])
    _check_gate(pages, repo)
    pages.send_json({})


@page("GET", "/api/models/REPO/tree/REV(?:/(.*))?")
def tree(pages: HubPages, name: str, revision: str, folder: str | None) -> None:
    _, commit = pages.find(name, revision)
    prefix = folder.strip("/") + "/" if folder and folder.strip("/") else ""
    below = {p: e for p, e in sorted(commit.files.items()) if p.startswith(prefix)}
    if prefix and not below:
        raise RefusedError(404, "EntryNotFound", f"{prefix} does not exist")
    folders = {p[: i + 1] for p in below for i in range(len(prefix), len(p)) if p[i] == "/"}
    rows = [
        {"type": "directory", "path": p[:-1], "oid": "0" * 40, "size": 0} for p in sorted(folders)
    ] + [_row(path, entry) for path, entry in below.items()]
    if pages.query.get("recursive", "").lower() not in {"true", "1"}:
        rows = [row for row in rows if "/" not in str(row["path"])[len(prefix) :]]
    start, size = int(pages.query.get("cursor", "0")), pages.hub.page_size
    headers = {}
    if start + size < len(rows):
        query = f"recursive={pages.query.get('recursive', 'false')}&cursor={start + size}"
        url = f"{pages.hub.url}/api/models/{name}/tree/{quote(revision, safe='')}/{prefix}?{query}"
        headers["Link"] = f'<{url}>; rel="next"'
    pages.send_json(rows[start : start + size], headers)


@page("POST", "/api/models/REPO/paths-info/REV")
def paths_info(pages: HubPages, name: str, revision: str) -> None:
    _, commit = pages.find(name, revision)
    is_json = "json" in (pages.headers.get("Content-Type") or "")
    wanted = pages.json["paths"] if is_json else parse_qs(pages.body.decode()).get("paths", [])
    pages.send_json([_row(p, commit.files[p]) for p in wanted if p in commit.files])


@page("GET", "/api/models/REPO/refs")
def refs(pages: HubPages, name: str) -> None:
    repo, _ = pages.find(name)

    def rows(kind: str, found: dict[str, str]) -> list[dict[str, str]]:
        return [
            {"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": sha} for n, sha in found.items()
        ]

    pages.send_json(
        {"branches": rows("heads", repo.branches), "tags": rows("tags", repo.tags), "converts": []}
    )


@page("GET", "/api/models/REPO/commits/REV")
def commits(pages: HubPages, name: str, revision: str) -> None:
    repo, commit = pages.find(name, revision)
    pages.send_json(
        [
            {"id": c.sha, "title": c.title, "message": c.description, "date": DATE,
             "authors": [{"user": USER}]}
            for c in repo.history(commit.sha)
        ]
    )  # fmt: skip


@page("GET", "/REPO/(?:resolve|raw)/REV/(.+)")
def resolve(pages: HubPages, name: str, revision: str, path: str) -> None:
    repo, commit = pages.find(name, revision)
    _check_gate(pages, repo)
    entry = commit.files.get(path)
    if entry is None:
        raise RefusedError(404, "EntryNotFound", f"{path} does not exist")
    headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{entry.etag}"'}
    if not entry.is_lfs:
        pages.send_file(path, entry, headers)
        return
    headers |= {"X-Linked-Etag": f'"{entry.sha256}"', "X-Linked-Size": str(len(entry.data))}
    if entry.xet and pages.hub.has_xet:
        token = f"{pages.hub.url}/api/models/{name}/xet-read-token/{commit.sha}"
        headers |= {"X-Xet-Hash": entry.xet, "Link": f'<{token}>; rel="xet-auth"'}
    headers["Location"] = f"{pages.hub.cdn_url}/{name}/{commit.sha}/{quote(path)}"
    pages.send(302, b"", headers)


def _check_gate(pages: HubPages, repo: Repo) -> None:
    if repo.gated and pages.token not in pages.hub.tokens:
        status = 403 if pages.token else 401
        raise RefusedError(status, "GatedRepo", f"Access to model {repo.name} is restricted")


def _row(path: str, entry: Entry) -> dict[str, object]:
    row: dict[str, object] = {"type": "file", "path": path, "size": len(entry.data)}
    row |= {"oid": entry.git_oid, **_lfs(entry, "oid")}
    return row | ({"xetHash": entry.xet} if entry.xet else {})


def _lfs(entry: Entry, digest: str) -> dict[str, object]:
    if not entry.is_lfs:
        return {}
    size = len(entry.data)
    return {"lfs": {digest: entry.sha256, "size": size, "pointerSize": len(entry.pointer)}}


# The pages that change something stand in the same table.
from . import collections, writing  # noqa: E402, F401
