"""The cache of the Hugging Face Hub's own client: what is in it is used, and it can use ours.

    models--owner--name/blobs/<etag>              the bytes; a large file's etag is its sha256
    models--owner--name/snapshots/<commit>/<path> a link to ../../blobs/<etag>
    models--owner--name/refs/main                 a commit

Layout: huggingface_hub, docs "Understand caching". llama.cpp's `-hf` shares it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from quantmint.files import full_disk_explained, make_folders, temporary_name, write_whole
from quantmint.registry.store import Blob, Store


def cache_folder() -> Path:
    """Return the cache, by the variables that the Hub's client reads."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(name):
            return Path(os.environ[name]).expanduser()
    if os.environ.get("HF_HOME"):
        return Path(os.environ["HF_HOME"]).expanduser() / "hub"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "huggingface" / "hub"


def cached_blob(sha256: str, size: int) -> Path | None:
    """Return a file of the cache that has that name and size; its bytes are yet to be hashed."""
    with contextlib.suppress(OSError):
        for path in sorted(cache_folder().glob(f"models--*/blobs/{sha256}")):
            if path.is_file() and path.stat().st_size == size:
                return path
    return None


def put_into_cache(
    store: Store, blob: Blob, repo: str, commit: str, path: str, *, is_main: bool = True
) -> Path:
    """Let the Hub's client and llama.cpp find an object in their cache; return its path there.

    `is_main`: the commit is the newest of the branch `main`, and is noted as such.

    Raises:
        UserError: the disk is full, or it failed.
    """
    folder = cache_folder() / ("models--" + repo.replace("/", "--"))
    entry = folder / "snapshots" / commit / path
    with full_disk_explained(folder.parent):
        bytes_at = folder / "blobs" / blob.sha256
        if not bytes_at.is_file() or bytes_at.stat().st_size != blob.size:
            store.link(blob, bytes_at)
        make_folders(entry.parent)
        up = os.path.relpath(bytes_at, entry.parent)
        staged = temporary_name(entry)
        staged.symlink_to(up)
        staged.replace(entry)
        if is_main:
            write_whole(folder / "refs" / "main", commit.encode())
    return entry
