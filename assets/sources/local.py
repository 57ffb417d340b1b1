"""A checkpoint in a local folder, or the one inside this package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from quantmint.assets.mint import Mint
from quantmint.assets.sources import checkpoint
from quantmint.errors import UserError
from quantmint.registry.actions import Action, Outcome, perform
from quantmint.registry.trees import TreeFile, put_tree


def embedded_folder(name: str) -> Path:
    """Return the folder of a checkpoint that this package carries."""
    return Path(str(resources.files("quantmint.assets"))) / "embedded" / name


def fingerprint(folder: Path) -> list[list[object]]:
    """Return what tells cheaply whether a folder changed: names, sizes and times of its files.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder} is no folder",
            mend="correct `source: {path: ...}` in the model file (relative to that file)",
        )
    rows: list[list[object]] = []
    for name in checkpoint.wanted(path.name for path in folder.iterdir() if path.is_file()):
        found = (folder / name).stat()
        rows.append([name, found.st_size, found.st_mtime_ns, found.st_ino])
    return rows


def fetch_folder(mint: Mint, folder: Path, family: str | None, known: frozenset[str]) -> Outcome:
    """Bring the checkpoint's files into the store, unless a folder just like it was brought in.

    The files are not hashed again while their names, sizes and times stand.

    Raises:
        UserError: there is no such folder, or the disk is full.
        SourceError: it is no checkpoint that can be converted.
    """
    rows = fingerprint(folder)
    action = Action(
        name="local-checkpoint",
        inputs={},
        tools={},
        arguments={"files": rows, "folder": str(folder.resolve()), "family": family},
    )
    return perform(mint.store, action, lambda: _bring_in(mint, folder, family, known))


def _bring_in(mint: Mint, folder: Path, family: str | None, known: frozenset[str]) -> Outcome:
    present = [path.name for path in folder.iterdir() if path.is_file()]
    checkpoint.check_listing(present, str(folder))
    config = checkpoint.read_json(folder / "config.json")
    architecture = checkpoint.check_config(config, family, known)
    checkpoint.check_tokenizer(folder, architecture)
    weights = checkpoint.check_weights(folder)
    names = checkpoint.wanted(present)
    mint.store.require_room(sum((folder / name).stat().st_size for name in names))
    files = [TreeFile(name, mint.store.put(folder / name)) for name in names]
    tree = put_tree(mint.store, files)
    return Outcome(
        outputs={"source": tree.blob},
        trees=("source",),
        facts={"architecture": architecture, "weights": weights, "commit": tree.sha256},
    )
