"""What is fetched, from where, within which limits, and what is told meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from quantmint import names
from quantmint.errors import IntegrityError
from quantmint.registry.store import Blob

if TYPE_CHECKING:
    from quantmint.registry.tensors import TensorTable


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A GGUF file on this machine, and the table that says where its tensors lie."""

    path: Path
    table: TensorTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One object that is wanted: its digest and size in bytes, and its path below an origin.

    `table` is the wanted file's own table of tensors, if it is known (and came with its digest
    from a manifest): with it only those tensors are fetched that none of `local` has.
    """

    sha256: str
    size: int
    path: str
    table: TensorTable | None = None
    local: tuple[LocalFile, ...] = ()

    def __post_init__(self) -> None:
        names.digest(self.sha256)
        table = self.table
        if self.size < 0 or (table and (table.sha256, table.size) != (self.sha256, self.size)):
            raise IntegrityError(f"the size or the table of {self.path} is another file's")

    @property
    def blob(self) -> Blob:
        """The object as the store names it."""
        return Blob(self.sha256, self.size)


@dataclass(frozen=True, slots=True)
class Origin:
    """A place that serves files: `https://...`, `http://...` or `file:FOLDER`.

    `paths` gives the path of an item where it is not the item's own (a mirror laid out otherwise).
    The token goes to the host of `base` and to no other.
    """

    base: str
    token: str | None = field(default=None, repr=False)
    paths: Mapping[str, str] = field(default_factory=dict)

    def path(self, item: Item) -> str:
        """Return where the item lies below `base`."""
        return self.paths.get(item.path, item.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How hard is tried, and how much is taken.

    `part` and `step` are bytes: of one request, and between two lines of the journal. A connection
    that brings fewer than `least` bytes in `patience` seconds is cut. An origin is given up after
    `tries` failures in a row; waits between them are doubled from `first` to `longest` seconds,
    but a server that names a time gets it, up to `most`. `rate` is in bytes per second. One more
    connection is opened, up to `connections`, each time they bring less than `enough` a second.
    """

    connections: int = 4
    part: int = 16 << 20
    step: int = 4 << 20
    patience: float = 30.0
    least: int = 16 << 10
    connect: float = 10.0
    tries: int = 6
    first: float = 1.0
    longest: float = 30.0
    most: float = 900.0
    rate: float | None = None
    enough: float = 250e6
    xet: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far one item is. Sizes in bytes; `rate` in bytes per second, `left` in seconds.

    `done` counts all that is there; of that `fetched` came over the wire in this call and `reused`
    was on this machine already.
    """

    path: str
    size: int
    done: int
    fetched: int
    reused: int
    rate: float
    left: float | None


Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What fetching one item took. `requests` that were answered; `reused` bytes were here.

    `way` is `present`, `copied` (from a `file:` origin), `http` or `xet`.
    """

    blob: Blob
    way: str
    fetched: int = 0
    reused: int = 0
    requests: int = 0
    restarts: int = 0
