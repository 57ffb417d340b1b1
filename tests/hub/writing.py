"""The Hub's pages that change something: repositories, branches, tags, commits, uploads."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import yaml

from .content import Entry, routed
from .pages import RefusedError
from .reading import HubPages, page


def _owner_may(pages: HubPages, name: str) -> None:
    pages.hub.may_write(pages.token, name.partition("/")[0])


@page("POST", "/api/repos/create")
def create(pages: HubPages) -> None:
    asked = pages.json
    from .server import USER

    name = f"{asked.get('organization') or USER}/{asked['name']}"
    _owner_may(pages, name)
    url = f"{pages.hub.url}/{name}"
    with pages.hub.lock:
        if name in pages.hub.repos:
            raise RefusedError(409, "", "You already created this model repo", url=url)
        pages.hub.create(name, private=asked.get("visibility") == "private")
    pages.send_json({"url": url, "name": name, "id": name})


@page("DELETE", "/api/repos/delete")
def delete(pages: HubPages) -> None:
    name = f"{pages.json.get('organization') or 'tester'}/{pages.json['name']}"
    _owner_may(pages, name)
    pages.find(name)
    del pages.hub.repos[name]
    pages.send(200, b"OK")


@page("POST", "/api/repos/move")
def move(pages: HubPages) -> None:
    old, new = pages.json["fromRepo"], pages.json["toRepo"]
    for name in (old, new):
        _owner_may(pages, name)
    repo, _ = pages.find(old)
    pages.hub.repos[new] = pages.hub.repos.pop(old)
    repo.name = new
    pages.send(200, b"OK")


@page("PUT", "/api/models/REPO/settings")
def settings(pages: HubPages, name: str) -> None:
    _owner_may(pages, name)
    repo, _ = pages.find(name)
    asked = pages.json
    if "visibility" in asked:
        repo.private = asked["visibility"] == "private"
    if "gated" in asked:
        repo.gated = bool(asked["gated"])
    pages.send_json({})


@page("POST DELETE", "/api/models/REPO/branch/REV")
def branch(pages: HubPages, name: str, branch: str) -> None:
    _owner_may(pages, name)
    repo, start = pages.find(name, pages.json.get("startingPoint"))
    with pages.hub.lock:
        if pages.command == "DELETE":
            if repo.branches.pop(branch, None) is None:
                raise RefusedError(404, "RevisionNotFound", f"no branch {branch}")
        elif branch in repo.branches:
            raise RefusedError(409, "", f"Reference already exists: refs/heads/{branch}")
        else:
            repo.branches[branch] = start.sha
    pages.send(200, b"OK")


@page("POST DELETE", "/api/models/REPO/tag/REV")
def tag(pages: HubPages, name: str, revision: str) -> None:
    _owner_may(pages, name)
    if pages.command == "DELETE":
        repo, _ = pages.find(name)
        if repo.tags.pop(revision, None) is None:
            raise RefusedError(404, "RevisionNotFound", f"no tag {revision}")
    else:
        repo, commit = pages.find(name, revision)
        label = pages.json["tag"]
        with pages.hub.lock:
            if label in repo.tags:
                raise RefusedError(409, "", f"Tag reference exists already: refs/tags/{label}")
            repo.tags[label] = commit.sha
    pages.send(200, b"OK")


@page("POST", "/api/validate-yaml")
def validate_yaml(pages: HubPages) -> None:
    text = pages.json["content"]
    front = text.split("---\n")[1] if text.startswith("---\n") and text.count("---\n") > 1 else ""
    try:
        value = yaml.safe_load(front) or {}
        if not isinstance(value, dict):
            raise yaml.YAMLError("the front matter is no mapping")
    except yaml.YAMLError as error:
        body = {"errors": [{"message": str(error)}], "warnings": []}
        pages.send(400, json.dumps(body).encode(), {"Content-Type": "application/json"})
        return
    warnings = [] if front else [{"message": "empty or missing yaml metadata in repo card"}]
    pages.send_json({"errors": [], "warnings": warnings})


@page("POST", "/api/models/REPO/preupload/REV")
def preupload(pages: HubPages, name: str, revision: str) -> None:
    _owner_may(pages, name)
    repo, commit = pages.find(name, revision)
    rows = []
    for file in pages.json["files"]:
        is_lfs = repo.wants_lfs(file["path"], file["size"], file["sample"], revision)
        known = commit.files.get(file["path"])
        oid = {"oid": known.etag} if known is not None else {}
        mode = "lfs" if is_lfs else "regular"
        rows.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, **oid})
    pages.send_json({"files": rows})


@page("GET", "/api/models/REPO/xet-(read|write)-token/REV")
def xet_token(pages: HubPages, name: str, kind: str, revision: str) -> None:
    pages.find(name, revision)
    if kind == "write":
        _owner_may(pages, name)
    if not pages.hub.has_xet:
        raise RefusedError(404, "EntryNotFound", "no xet here")
    url, expires = f"{pages.hub.cdn_url}/cas", int(time.time()) + 3600
    token = pages.hub.cas.token
    pages.send_json(
        {"accessToken": token, "exp": expires, "casUrl": url},
        {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": token, "X-Xet-Token-Expiration": str(expires)},
    )


@page("POST", r"/REPO\.git/info/lfs/objects/batch")
def lfs_batch(pages: HubPages, name: str) -> None:
    _owner_may(pages, name)
    pages.find(name)
    hub, rows = pages.hub, []
    for wanted in pages.json["objects"]:
        oid, size = wanted["oid"], int(wanted["size"])
        row: dict[str, Any] = {"oid": oid, "size": size}
        if oid not in hub.large:
            upload: dict[str, Any] = {"href": f"{hub.cdn_url}/upload/{oid}"}
            if size > hub.multipart_from:
                count, base = -(-size // hub.multipart_from), f"{hub.cdn_url}/upload/{oid}/part"
                upload["href"] = f"{hub.cdn_url}/complete/{oid}"
                upload["header"] = {"chunk_size": str(hub.multipart_from)}
                upload["header"] |= {str(n): f"{base}/{n}" for n in range(1, count + 1)}
            verify = {"href": f"{hub.url}/{name}.git/info/lfs/verify"}
            row["actions"] = {"upload": upload, "verify": verify}
        rows.append(row)
    pages.send_json({"transfer": "basic", "objects": rows})


@page("POST", r"/REPO\.git/info/lfs/verify")
def lfs_verify(pages: HubPages, name: str) -> None:
    pages.find(name)
    _known_large(pages, pages.json["oid"], pages.json["size"])
    pages.send_json({"success": True})


def _known_large(pages: HubPages, oid: str, size: int | None = None) -> Entry:
    entry = pages.hub.large.get(oid)
    if entry is None or (size is not None and len(entry.data) != size):
        raise RefusedError(400, "", f"Your push references an LFS pointer that is unknown: {oid}")
    return entry


@page("POST", "/api/models/REPO/commit/REV")
def commit(pages: HubPages, name: str, branch: str) -> None:
    _owner_may(pages, name)
    lines = [json.loads(line) for line in pages.body.splitlines() if line.strip()]
    header = lines[0]["value"]
    with pages.hub.lock:
        repo, head = pages.find(name, branch)
        if header.get("parentCommit") not in {None, head.sha}:
            raise RefusedError(
                412, "", "A commit has happened since. Please refresh and try again."
            )
        files = dict(head.files)
        for line in lines[1:]:
            _apply(pages, files, line["key"], line["value"])
        _route(files)
        is_pr = "create_pr" in pages.query
        if is_pr:
            number = 1 + sum(b.startswith("refs/pr/") for b in repo.branches)
            branch = f"refs/pr/{number}"
            repo.branches[branch] = head.sha
        sha = repo.record(files, branch, header["summary"], header.get("description", ""))
    found = {"commitUrl": f"{pages.hub.url}/{name}/commit/{sha}", "commitOid": sha}
    if is_pr:
        found["pullRequestUrl"] = f"{pages.hub.url}/{name}/discussions/{number}"
    pages.send_json({"success": True, **found})


def _route(files: dict[str, Entry]) -> None:
    """Add a line to `.gitattributes` for each large file that it does not route: the Hub does."""
    known = files.get(".gitattributes", Entry(b"", is_lfs=False)).data
    lines = [
        f"{path} filter=lfs diff=lfs merge=lfs -text\n".encode()
        for path, entry in sorted(files.items())
        if entry.is_lfs and not routed(known, path)
    ]
    if lines:
        files[".gitattributes"] = Entry(known + b"".join(lines), is_lfs=False)


def _apply(pages: HubPages, files: dict[str, Entry], key: str, value: dict[str, Any]) -> None:
    path = value["path"]
    if key == "file":
        data = value["content"]
        is_coded = value.get("encoding") == "base64"
        files[path] = Entry(base64.b64decode(data) if is_coded else data.encode(), is_lfs=False)
    elif key == "lfsFile":
        files[path] = _known_large(pages, value["oid"], value.get("size"))
    elif key == "deletedFile":
        if files.pop(path, None) is None:
            raise RefusedError(404, "EntryNotFound", f"A file with this name doesn't exist: {path}")
    elif key == "deletedFolder":
        for name in [n for n in files if n.startswith(path.rstrip("/") + "/")]:
            del files[name]
    else:
        raise RefusedError(400, "", f"unknown operation {key}")
