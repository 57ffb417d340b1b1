"""The second origin, where large files lie: it must never see the Hub's token."""

from __future__ import annotations

import hashlib

from . import xet
from .content import Entry
from .pages import Pages, RefusedError, Table

TABLE = Table()
page = TABLE.page


class CdnPages(Pages):
    """Storage: files by signed address, parts of uploads, and xet's chunks."""

    server_name = "cdn"
    table = TABLE


@page("PUT", "/upload/HEX")
def upload(pages: CdnPages, oid: str) -> None:
    _keep(pages, oid, pages.body)
    pages.send(200, b"", {"ETag": f'"{oid}"'})


@page("PUT", r"/upload/HEX/part/(\d+)")
def upload_part(pages: CdnPages, oid: str, number: str) -> None:
    with pages.hub.lock:
        pages.hub.parts.setdefault(oid, {})[int(number)] = pages.body
    etag = hashlib.md5(pages.body).hexdigest()
    pages.send(200, b"", {"ETag": f'"{etag}"'})


@page("POST", "/complete/HEX")
def complete(pages: CdnPages, oid: str) -> None:
    parts = pages.hub.parts.get(oid, {})
    for row in pages.json["parts"]:
        data = parts.get(row["partNumber"])
        if data is None or row["etag"].strip('"') != hashlib.md5(data).hexdigest():
            raise RefusedError(400, "", f"part {row['partNumber']} is missing or altered")
    _keep(pages, oid, b"".join(parts[n] for n in sorted(parts)))
    pages.send_json({})


def _keep(pages: CdnPages, oid: str, data: bytes) -> None:
    entry = Entry(data, is_lfs=True)
    if entry.sha256 != oid:
        raise RefusedError(400, "", "the bytes have another sha256 than their name")
    with pages.hub.lock:
        pages.hub.large.setdefault(oid, entry)
        pages.hub.kept += len(data)


@page("POST", "/cas/v1/xorbs/default/HEX")
def put_xorb(pages: CdnPages, name: str) -> None:
    _check(pages)
    with pages.hub.lock:
        pages.hub.kept += len(pages.body)
        is_new = pages.hub.cas.put_xorb(name, pages.body)
    pages.send_json({"was_inserted": is_new})


@page("POST", "/cas/v1/shards")
def put_shard(pages: CdnPages) -> None:
    _check(pages)
    try:
        with pages.hub.lock:
            pages.hub.cas.put_shard(pages.body)
    except xet.BadShardError as error:
        raise RefusedError(400, "", str(error)) from None
    pages.send_json({"result": 1})


@page("GET", "/cas/v([12])/reconstructions/HEX")
def reconstruction(pages: CdnPages, version: str, file_id: str) -> None:
    _check(pages)
    try:
        found = pages.hub.cas.reconstruct(
            file_id, pages.headers.get("Range"), f"{pages.hub.cdn_url}/cas/xorb", version
        )
    except KeyError:
        raise RefusedError(404, "EntryNotFound", "no such file") from None
    if found is None:
        pages.send(416, b"")
    else:
        pages.send_json(found)


@page("GET", "/cas/xorb/HEX")
def xorb(pages: CdnPages, name: str) -> None:
    pages.send_file(f"xorb/{name}", Entry(pages.hub.cas.xorbs[name].data, is_lfs=True), {})


def _check(pages: CdnPages) -> None:
    if pages.token != pages.hub.cas.token:
        raise RefusedError(401, "", "not this store's token")


@page("GET", "/REPO/([0-9a-f]{40})/(.+)")
def file(pages: CdnPages, name: str, sha: str, path: str) -> None:
    entry = pages.hub.repos[name].commits[sha].files[path]
    pages.send_file(path, entry, {"ETag": f'"{entry.sha256}"'})
