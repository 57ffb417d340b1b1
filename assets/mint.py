"""What every stage works with: the home folder, the store, the threads and a place to report."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from quantmint.home import Home, find_home
from quantmint.registry.store import Store


@dataclass(frozen=True, slots=True)
class Mint:
    """The workshop. `report` takes one line of progress at a time."""

    home: Home
    store: Store
    threads: int
    report: Callable[[str], None]

    @property
    def tools(self) -> Store:
        """The store as tools are taken from: they are not made again for a model's sake."""
        return Store(self.home.store).open()

    def log(self, *parts: str) -> Path:
        """Return where the whole output of one tool goes."""
        return self.home.logs.joinpath(*parts[:-1]) / f"{parts[-1]}.log"


def open_mint(report: Callable[[str], None], *, not_before: float = 0.0) -> Mint:
    """Open the store of this machine's home folder, with one thread per core that we may use.

    What was made before the moment `not_before` (seconds since 1970) is made again.

    Raises:
        UserError: the home folder can't be written.
    """
    home = find_home()
    store = Store(home.store, not_before=not_before).open()
    return Mint(home, store, len(os.sched_getaffinity(0)), report)
