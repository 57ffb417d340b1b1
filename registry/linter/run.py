"""All rules over one listing, and listings out of folders and of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from quantmint.errors import IntegrityError, UserError
from quantmint.registry import gguf
from quantmint.registry.linter.card import check_attributes, check_card, check_ollama_files
from quantmint.registry.linter.headers import check_headers
from quantmint.registry.linter.layout import (
    check_parts,
    check_paths,
    check_preset,
    check_repo,
    check_sidecars,
    check_sizes,
)
from quantmint.registry.linter.listing import Finding, ListedFile, Listing
from quantmint.registry.linter.tags import check_defaults, check_pairs, check_tags
from quantmint.registry.signing.folder import DOWNLOADER

RULES: Final = (
    check_repo, check_paths, check_preset, check_sidecars, check_parts, check_sizes,
    check_tags, check_defaults, check_pairs, check_headers,
    check_card, check_attributes, check_ollama_files,
)  # fmt: skip
TEXTS: Final = frozenset({"README.md", ".gitattributes", "params", "template", "system"})
TEXT_LIMIT: Final = 1 << 20
LISTING_LIMIT: Final = 16 << 20
MOST_FILES: Final = 10_000
MOST_TAGS: Final = 256
LONGEST_PATH: Final = 1024


def lint(listing: Listing) -> tuple[Finding, ...]:
    """Return what is wrong with a layout, errors first."""
    if not listing.advertised:
        what = "there is no model: no .gguf file that a client takes for one"
        return (Finding("tag", "error", what, "add the variants' files"),)
    if len(listing.advertised) > MOST_TAGS:
        what = f"there are {len(listing.advertised)} models in it, more than {MOST_TAGS}"
        return (Finding("tag", "error", what, "publish them in several repositories"),)
    found = [finding for rule in RULES for finding in rule(listing)]
    return tuple(sorted(found, key=lambda finding: finding.severity))


def require_clean(listing: Listing) -> tuple[Finding, ...]:
    """Return the warnings of a layout that may be published.

    Raises:
        IntegrityError: it may not; the message has every error and its mend.
    """
    found = lint(listing)
    errors = [finding for finding in found if finding.severity == "error"]
    if errors:
        lines = "".join(f"\n  - {error.what}\n    mend: {error.mend}" for error in errors)
        raise IntegrityError(f"the layout is refused, nothing was published:{lines}")
    return found


def from_folder(folder: Path, *, repo: str | None = None, chat: bool = True) -> Listing:
    """List a folder as a hub would list it: by path; GGUF headers pass the gate.

    Raises:
        GgufError: a .gguf file is not well-formed.
        UserError: the folder holds too many files.
    """
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    notes = (".git/", f"{DOWNLOADER}/")  # of the program that fetched it, never of a release
    names = sorted(name for name in found if not name.startswith(notes))
    if len(names) > MOST_FILES:
        raise UserError(f"{folder} holds {len(names)} files, more than {MOST_FILES}")
    rows = [_listed(_checked(name), found[name]) for name in names]
    return Listing.of(rows, repo=repo, chat=chat)


def _listed(name: str, path: Path) -> ListedFile:
    size = path.stat().st_size
    if name.endswith(".gguf") and size:
        return ListedFile(name, size, header=gguf.read(path))
    if name in TEXTS:
        if size > TEXT_LIMIT:
            raise UserError(f"{path} is longer than {TEXT_LIMIT >> 20} MiB")
        return ListedFile(name, size, text=path.read_bytes().decode("utf-8", "replace"))
    return ListedFile(name, size)


def from_json(data: bytes, *, repo: str | None = None, chat: bool = True) -> Listing:
    """Read a listing: the Hub's tree (`api/models/OWNER/NAME/tree/main`), or a list of paths.

    Each row is a path, or an object with `path` and `size` (rows of another `type` than `file`
    are passed by). Headers and texts are not in it: their rules are passed by.

    Raises:
        UserError: it is no such list.
    """
    if len(data) > LISTING_LIMIT:
        raise UserError(f"the listing is longer than {LISTING_LIMIT >> 20} MiB")
    try:
        rows = json.loads(data)
    except (ValueError, RecursionError):
        raise UserError(
            "the listing is no JSON", mend="give a folder, or a list of files"
        ) from None
    if not isinstance(rows, list) or len(rows) > MOST_FILES:
        raise UserError(f"the listing is no JSON list of at most {MOST_FILES} files")
    return Listing.of(_rows(rows), repo=repo, chat=chat)


def _rows(rows: Sequence[Any]) -> Iterable[ListedFile]:
    for row in rows:
        named = {"path": row, "size": 1} if isinstance(row, str) else row
        path = named.get("path") if isinstance(named, dict) else None
        size = named.get("size", 0) if isinstance(named, dict) else None
        if not isinstance(path, str) or not isinstance(size, int) or size < 0:
            raise UserError(f"the listing has a row without path and size: {str(row)[:80]!r}")
        if named.get("type", "file") == "file":
            yield ListedFile(_checked(path), size)


def _checked(path: str) -> str:
    """Return a path that can be printed: findings name it as it is."""
    if len(path) > LONGEST_PATH or not path.isprintable():
        raise UserError(
            f"a file's path can't be shown: {path[:80]!r}",
            mend=f"use printable names of at most {LONGEST_PATH} letters",
        )
    return path
