"""Putting a pulled file where programs find it: links, no second copy where the disk can share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from quantmint.errors import IntegrityError, UserError
from quantmint.files import sha256_of
from quantmint.home import Home
from quantmint.registry.pull.kept import Kept, all_kept
from quantmint.registry.pull.reference import IMPORTED
from quantmint.registry.store import ATTRIBUTE, Blob, Store
from quantmint.watching import naming

LM_STUDIO: Final = "~/.lmstudio/models"
OLLAMA: Final = "~/.ollama/models"
# No model and no owner has such a name.
_IMPORTS: Final = "_import"


@dataclass(frozen=True, slots=True)
class Spot:
    """A folder, and whose files may be replaced there by others of the same names.

    `own`: those of the same source alone. `is_flat`: subfolders of a repository are left out.
    """

    folder: Path
    replaces: Literal["all", "own", "none"] = "none"
    is_flat: bool = True

    def target(self, path: str) -> Path:
        """Return where a file of a release lies in it."""
        return self.folder / (path.rpartition("/")[2] if self.is_flat else path)


def own_spot(home: Home, kept: Kept) -> Spot:
    """Return the folder below `models/`: by model, or by repository where nothing was signed.

    An import for which nobody vouches has a folder apart, and replaces nothing. So has a model of
    which another publisher's came first (`kept.settled`): no model's name has an `@`.

    Raises:
        IntegrityError: the reference names a folder outside of it.
    """
    kind, _, name = kept.place.partition(":")
    replaces: Literal["all", "own", "none"] = "all" if kept.signer else "own"
    if kept.signer is None and kind == "import":
        name, replaces = f"{_IMPORTS}/{name}", "none"
    elif kept.identity is None and kind == "hub":
        replaces = "all"  # the folder is its own
    elif kept.signer and kept.apart:
        name = f"{kept.model}@{(kept.identity or '').partition('/')[0]}"
    else:
        name = kept.model
    return Spot(_below(home.models, name), replaces, is_flat=False)


def _below(base: Path, name: str) -> Path:
    """Return a folder below another one, whatever a damaged reference says."""
    if not {"", ".", ".."}.isdisjoint(name.split("/")):
        raise IntegrityError(f"{name[:200]!r} is no folder below {base}", mend="quantmint list")
    return base / name


def lm_studio_spot(kept: Kept) -> Spot:
    """Return LM Studio's folder: publisher, model; hub-docs `lmstudio.md` has the layout."""
    word = kept.place.removeprefix("hub:") if kept.place.startswith("hub:") else kept.identity
    if kept.signer is None and kept.place.startswith(IMPORTED):
        word = None
    base = Path(os.environ.get("LMSTUDIO_MODELS") or LM_STUDIO).expanduser()
    return Spot(_below(base, word or f"quantmint/{kept.model}"))


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
    refuse_others(store, kept, variant, spot)
    placed = []
    for path in kept.variants[variant]:
        target = spot.target(path)
        if not _is_there(store, kept.objects[path], target):
            with naming(path):
                store.link(kept.objects[path], target)
        placed.append(target)
    return placed[0]


def refuse_others(store: Store, kept: Kept, variant: str, spot: Spot) -> None:
    """Refuse to put a variant's files where others lie that may not be replaced.

    Raises:
        UserError: another file has such a name there, or it is another trusted publisher's.
    """
    for path in kept.variants[variant]:
        blob, target = kept.objects[path], spot.target(path)
        if not os.path.lexists(target):
            continue
        if _is_there(store, blob, target):
            continue
        if spot.replaces == "all":
            _refuse_publishers(store, kept, target)
        elif not _is_same(blob, target) and (
            spot.replaces == "none" or not _is_older(store, kept, target)
        ):
            raise UserError(
                f"{target} is another file; it was left as it is",
                mend="move it away, or name another folder with --to",
            )


def _refuse_publishers(store: Store, kept: Kept, target: Path) -> None:
    """Refuse to replace what another publisher signed, however it came to lie there.

    Raises:
        UserError: it is another's, and not also of this one.
    """
    if _is_older(store, kept, target):
        return
    for other in all_kept(store, kept.model):
        is_anothers = other.signer is not None and other.source != kept.source
        if is_anothers and any(_is_there(store, b, target) for b in other.objects.values()):
            raise UserError(
                f"{target} is of {other.source}, and this is of {kept.source}: both are trusted,"
                " and neither replaces the other",
                mend=f"quantmint rm {other.source}, or rm {kept.source}; then pull again",
            )


def placed_files(store: Store, home: Home, kept: Kept, variant: str) -> list[Path]:
    """Return where a variant's files lie below `models/`, those that are still these."""
    spot = own_spot(home, kept)
    found = [(path, at) for path in kept.variants[variant] for at in _targets(spot, path)]
    return [at for path, at in found if _is_there(store, kept.objects[path], at)]


def _targets(spot: Spot, path: str) -> Iterator[Path]:
    """Yield where a file may lie; subfolders were left out before."""
    yield spot.target(path)
    if "/" in path:
        yield spot.folder / path.rpartition("/")[2]


def _is_older(store: Store, kept: Kept, target: Path) -> bool:
    """Return whether a file came of the same source before."""
    own = [each for each in all_kept(store) if each.source == kept.source]
    return any(_is_there(store, blob, target) for each in own for blob in each.objects.values())


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
