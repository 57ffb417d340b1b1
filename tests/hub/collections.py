"""The Hub's collections: lists of repositories with a note to each."""

from __future__ import annotations

import secrets
from typing import Any

from .pages import RefusedError
from .reading import DATE, HubPages, page


def _find(pages: HubPages, slug: str) -> dict[str, Any]:
    found: dict[str, Any] | None = pages.hub.collections.get(slug)
    if found is None:
        raise RefusedError(404, "EntryNotFound", f"no collection {slug}")
    return found


@page("POST", "/api/collections")
def create(pages: HubPages) -> None:
    asked = pages.json
    pages.hub.may_write(pages.token, asked["namespace"])
    slug = f"{asked['namespace']}/{asked['title'].lower().replace(' ', '-')}-{'0' * 24}"
    if slug in pages.hub.collections:
        raise RefusedError(409, "", "it exists already", slug=slug)
    pages.hub.collections[slug] = {
        "slug": slug, "title": asked["title"], "owner": {"name": asked["namespace"]}, "items": [],
        "lastUpdated": DATE, "position": 0, "private": asked.get("private", False),
        "theme": "green", "upvotes": 0, "description": asked.get("description"),
    }  # fmt: skip
    pages.send_json(pages.hub.collections[slug])


@page("GET PATCH DELETE", "/api/collections/([^/]+/[^/]+)")
def collection(pages: HubPages, slug: str) -> None:
    found = _find(pages, slug)
    if pages.command in {"PATCH", "DELETE"}:
        pages.hub.may_write(pages.token, slug.partition("/")[0])
    if pages.command == "PATCH":
        found |= pages.json
    if pages.command == "DELETE":
        del pages.hub.collections[slug]
    pages.send_json({"data": found} if pages.command == "PATCH" else found)


@page("POST", "/api/collections/([^/]+/[^/]+)/items")
def add_item(pages: HubPages, slug: str) -> None:
    pages.hub.may_write(pages.token, slug.partition("/")[0])
    found, asked = _find(pages, slug), pages.json
    item = {"_id": secrets.token_hex(12), **asked["item"], "position": len(found["items"])}
    if asked.get("note"):
        item["note"] = {"text": asked["note"]}
    if any(known["id"] == item["id"] for known in found["items"]):
        raise RefusedError(409, "", "Item already in the collection")
    found["items"].append(item)
    pages.send_json(found)


@page("PATCH DELETE", "/api/collections/([^/]+/[^/]+)/items/HEX")
def change_item(pages: HubPages, slug: str, name: str) -> None:
    pages.hub.may_write(pages.token, slug.partition("/")[0])
    found = _find(pages, slug)
    kept = [item for item in found["items"] if item["_id"] != name]
    if len(kept) == len(found["items"]):
        raise RefusedError(404, "EntryNotFound", f"no item {name}")
    if pages.command == "DELETE":
        found["items"] = kept
    else:
        next(item for item in found["items"] if item["_id"] == name).update(pages.json)
    pages.send_json({})
