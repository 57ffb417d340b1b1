"""Errors sorted by who must act, one exit code each.

A message says what happened, what it means and the command that mends it.

| class            | exit | who must act                                         |
|------------------|------|------------------------------------------------------|
| `UserError`      | 2    | the person at the keyboard: arguments, files, disk   |
| `SourceError`    | 3    | the upstream: checkpoint, package, network           |
| `BuildError`     | 4    | the toolchain: compiler, CMake, llama.cpp's tools    |
| `IntegrityError` | 5    | nobody may use these bytes: damaged, or failed tests |
| `RegistryError`  | 6    | the registry that is published to or pulled from     |
| `BugError`       | 70   | us                                                   |
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class QuantmintError(Exception):
    """Base of every error that quantmint raises on purpose.

    `what` says what happened and what it means; `mend` is the command or step that mends it.
    `retryable`: the same thing may succeed a little later, with nothing mended by anybody (a
    server that is down or overloaded). The service tries such a thing again by itself.
    """

    exit_code: ClassVar[int] = 70

    def __init__(self, what: str, *, mend: str | None = None, retryable: bool = False) -> None:
        super().__init__(what, mend)
        self.what = what
        self.mend = mend
        self.retryable = retryable

    def __str__(self) -> str:
        return self.what if self.mend is None else f"{self.what}\n  mend: {self.mend}"

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, self.mend, self.retryable))


def _rebuild(
    kind: type[QuantmintError], what: str, mend: str | None, retryable: bool
) -> QuantmintError:
    """Unpickle with the keyword arguments that `Exception.__reduce__` would drop."""
    return kind(what, mend=mend, retryable=retryable)


class UserError(QuantmintError):
    """The arguments, a model file or this machine's resources must change."""

    exit_code = 2


class SourceError(QuantmintError):
    """The checkpoint or package upstream is missing, refused or not what it claims."""

    exit_code = 3


class BuildError(QuantmintError):
    """A compiler or a native tool is missing or failed."""

    exit_code = 4


class IntegrityError(QuantmintError):
    """Bytes are damaged, or did not pass the tests that would let them be used."""

    exit_code = 5


class RegistryError(QuantmintError):
    """The registry refused, or served something that it should not have."""

    exit_code = 6


class BugError(QuantmintError):
    """Quantmint broke a promise of its own."""

    exit_code = 70


def nearest(word: str, legal: Iterable[str]) -> str:
    """Return `; did you mean X?` for the legal name nearest to `word`, or all legal names."""
    names = sorted(legal)
    folded = {name.casefold(): name for name in names}
    close = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {folded[close[0]]!r}?"
    return f"; legal: {', '.join(names)}"
