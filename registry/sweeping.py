"""What killed processes left in the store: unfinished files, leases, objects on their way out."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from quantmint.files import fsync_folder
from quantmint.registry.leases import AGE_BOUND, Verdict, judge

if TYPE_CHECKING:
    from quantmint.registry.store import Store

LEASE: Final = re.compile(r"[0-9a-f]{16}")
_STAGE: Final = re.compile(r"([0-9a-f]{16})\.[0-9a-f]{12}")
# Made before leases were: `<process id>.<random>`, and a lease that was never finished.
_OLD_STAGE: Final = re.compile(r"[0-9]{1,10}\.[0-9a-f]{12}")
_HALF_LEASE: Final = re.compile(r"\.[0-9a-f]{16}")
_TRASH: Final = re.compile(r"([0-9a-f]{16})\.(object|tree)\.([0-9a-f]{64})")


class Trashed(NamedTuple):
    """Something that a collector moved out and did not remove yet."""

    path: Path
    collector: str
    kind: Literal["object", "tree"]
    sha256: str


def sweep(store: Store) -> None:
    """Remove the staging folders of dead processes, then their leases; put back their trash.

    A process that can't be judged keeps what is its own.
    """
    known: dict[str, Verdict] = {}

    def is_dead(lease: str) -> bool:
        if lease not in known:
            known[lease] = judge(store.leases / lease)
        return known[lease] == "dead"

    for path in _listed(store.staging):
        owner = _STAGE.fullmatch(path.name)
        if (owner and is_dead(owner[1])) or (_OLD_STAGE.fullmatch(path.name) and _silent(path)):
            shutil.rmtree(path, ignore_errors=True)
    for item in trashed(store):
        if is_dead(item.collector):
            put_back(store, item)
    for path in _listed(store.leases):
        if (LEASE.fullmatch(path.name) and is_dead(path.name)) or (
            _HALF_LEASE.fullmatch(path.name) and _silent(path)
        ):
            with contextlib.suppress(OSError):
                path.unlink()


def trash_path(store: Store, collector: str, kind: str, sha256: str) -> Path:
    """Return the name under which a collector moves something out."""
    return store.trash / f"{collector}.{kind}.{sha256}"


def trashed(store: Store) -> Iterator[Trashed]:
    """Yield what is on its way out; whoever needs one of it puts it back."""
    for path in _listed(store.trash):
        match = _TRASH.fullmatch(path.name)
        if match is not None:
            kind: Literal["object", "tree"] = "tree" if match[2] == "tree" else "object"
            yield Trashed(path, match[1], kind, match[3])


def put_back(store: Store, item: Trashed) -> bool:
    """Give an object or a folder its name again; return whether it was still there.

    A twin that was made meanwhile has the same bytes.

    Raises:
        OSError: the disk failed.
    """
    final = store.path(item.sha256) if item.kind == "object" else store.trees / item.sha256
    try:
        item.path.rename(final)
    except FileNotFoundError:
        return False
    except OSError:
        if item.kind == "object" or not final.is_dir():
            raise
        shutil.rmtree(item.path, ignore_errors=True)
    fsync_folder(final.parent)
    fsync_folder(store.trash)
    return True


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []


def _silent(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return time.time() - path.lstat().st_mtime > AGE_BOUND
    return False
