"""What the linter looks at: the files of a repository in the order of its server."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

from quantmint.registry.gguf import Gguf

SHARD: Final = re.compile(r"(?P<prefix>.+)-(?P<index>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf")
# Words in a file's name by which llama.cpp knows that it is no model (common/download.cpp,
# gguf_filename_is_model).
SIDECARS: Final = ("mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")
_TAG: Final = re.compile(r"[-.]([A-Za-z0-9_]+)$")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a layout: an `error` keeps it from being published."""

    rule: str
    severity: Literal["error", "warning"]
    what: str
    mend: str


@dataclass(frozen=True, slots=True)
class ListedFile:
    """One file: its path with `/`, its size in bytes, and what was read of it, if anything.

    `header` is what the GGUF gate read, `text` the whole of a small text file.
    """

    path: str
    size: int
    header: Gguf | None = None
    text: str | None = None

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class Listing:
    """A repository's files. `advertised` pairs each tag with its file, or its first part.

    `chat` says whether the model is meant for chats; `repo` is `owner/name`, if known.
    """

    files: tuple[ListedFile, ...]
    advertised: tuple[tuple[str, str], ...]
    repo: str | None = None
    chat: bool = True

    @staticmethod
    def of(
        files: Iterable[ListedFile],
        *,
        advertised: Iterable[tuple[str, str]] | None = None,
        repo: str | None = None,
        chat: bool = True,
    ) -> Listing:
        """Make a listing; without `advertised`, every model file's own tag is advertised."""
        rows = tuple(files)
        paths = [row.path for row in rows]
        pairs = own_tags(paths) if advertised is None else advertised
        return Listing(rows, tuple(pairs), repo, chat)

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """All paths."""
        return tuple(file.path for file in self.files)

    def find(self, path: str) -> ListedFile | None:
        """Return the file of that path."""
        return next((file for file in self.files if file.path == path), None)

    def wanted(self) -> list[tuple[str, ListedFile]]:
        """Return the advertised files that are there, each with its tag."""
        found = [(tag, self.find(path)) for tag, path in self.advertised]
        return [(tag, file) for tag, file in found if file is not None]


def is_model(path: str) -> bool:
    """Whether llama.cpp takes the file for a model."""
    name = path.rpartition("/")[2]
    return path.endswith(".gguf") and not any(word in name for word in SIDECARS)


def parts_of(path: str, paths: Sequence[str]) -> tuple[str, ...]:
    """Return the file and, if it is one part of several, all listed parts."""
    own = SHARD.fullmatch(path)
    if own is None:
        return (path,)
    key = (own["prefix"], own["count"])
    found = [(other, SHARD.fullmatch(other)) for other in paths]
    return tuple(p for p, match in found if match and (match["prefix"], match["count"]) == key)


def is_later_part(path: str) -> bool:
    """Whether the file is a part other than the first."""
    match = SHARD.fullmatch(path)
    return match is not None and int(match["index"]) != 1


def own_tags(paths: Sequence[str]) -> list[tuple[str, str]]:
    """Return each model file with the tag at the end of its name, in upper case.

    >>> own_tags(["m-Q4_K_M.gguf", "m-imatrix.gguf", "m.Q8_0-00001-of-00002.gguf"])
    [('Q4_K_M', 'm-Q4_K_M.gguf'), ('Q8_0', 'm.Q8_0-00001-of-00002.gguf')]
    """
    pairs = []
    for path in paths:
        if not is_model(path) or is_later_part(path):
            continue
        shard = SHARD.fullmatch(path)
        found = _TAG.search(shard["prefix"] if shard else path.removesuffix(".gguf"))
        pairs.append((found[1].upper() if found else "", path))
    return pairs
