"""Putting a pulled file where programs find it: links, no second copy where the disk can share."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from quantmint.errors import UserError
from quantmint.files import sha256_of
from quantmint.home import Home
from quantmint.registry.pull.kept import Kept
from quantmint.registry.store import ATTRIBUTE, Blob, Store

LM_STUDIO: Final = "~/.lmstudio/models"
OLLAMA: Final = "~/.ollama/models"


@dataclass(frozen=True, slots=True)
class Spot:
    """A folder, and whether files of others may lie there under the same names."""

    folder: Path
    is_ours: bool


def own_spot(home: Home, kept: Kept) -> Spot:
    """Return the folder below `models/`: by model, or by repository where nothing was signed."""
    if kept.identity is None and kept.place.startswith("hub:"):
        return Spot(home.models / kept.place.removeprefix("hub:"), is_ours=True)
    return Spot(home.models / kept.model, is_ours=True)


def lm_studio_spot(kept: Kept) -> Spot:
    """Return LM Studio's folder: publisher, model; hub-docs `lmstudio.md` has the layout."""
    word = kept.place.removeprefix("hub:") if kept.place.startswith("hub:") else kept.identity
    base = Path(os.environ.get("LMSTUDIO_MODELS") or LM_STUDIO).expanduser()
    return Spot(base / (word or f"quantmint/{kept.model}"), is_ours=False)


def put_for_ollama(store: Store, kept: Kept, variant: str) -> Path:
    """Link a variant's file to where Ollama keeps its bytes: `ollama create` then copies nothing.

    Layout: Ollama, server/modelpath.go (`blobs/sha256-<64 hex>`); a blob that is there is taken as
    it is (server/routes.go, `CreateBlobHandler`).

    Raises:
        UserError: the model is in parts, which Ollama can't read; or the disk is full.
    """
    blobs = kept.files(variant)
    if len(blobs) > 1:
        raise UserError(
            f"{kept.model}:{variant} is a model in parts, which Ollama can't read",
            mend="pull a variant that is one file",
        )
    base = Path(os.environ.get("OLLAMA_MODELS") or OLLAMA).expanduser()
    target = base / "blobs" / f"sha256-{blobs[0].sha256}"
    if not target.is_file() or target.stat().st_size != blobs[0].size:
        store.link(blobs[0], target)
    return target


def put_files(store: Store, kept: Kept, variant: str, spot: Spot) -> Path:
    """Link a variant's files into a folder, and return the first.

    Raises:
        UserError: another file has that name there; or the disk is full.
    """
    placed = []
    for path in kept.variants[variant]:
        blob = kept.objects[path]
        target = spot.folder / path.rpartition("/")[2]
        if not _is_there(store, blob, target):
            if target.exists() and not spot.is_ours and not _is_same(blob, target):
                raise UserError(
                    f"{target} is another file; it was left as it is",
                    mend="move it away, or name another folder with --to",
                )
            store.link(blob, target)
        placed.append(target)
    return placed[0]


def placed_files(store: Store, home: Home, kept: Kept, variant: str) -> list[Path]:
    """Return where a variant's files lie below `models/`, those that are still these."""
    folder = own_spot(home, kept).folder
    found = [(path, folder / path.rpartition("/")[2]) for path in kept.variants[variant]]
    return [at for path, at in found if _is_there(store, kept.objects[path], at)]


def _is_there(store: Store, blob: Blob, target: Path) -> bool:
    """Return whether the file is a link to this object, or a clone that carries its digest."""
    try:
        found = target.lstat()
        own = store.path(blob.sha256).lstat()
    except OSError:
        return False
    if (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino):
        return True
    if found.st_size != blob.size or not hasattr(os, "getxattr"):
        return False
    try:
        return os.getxattr(target, ATTRIBUTE).decode("ascii", "replace") == blob.sha256
    except OSError:
        return False


def _is_same(blob: Blob, target: Path) -> bool:
    return (
        target.is_file()
        and target.stat().st_size == blob.size
        and (sha256_of(target) == blob.sha256)
    )
