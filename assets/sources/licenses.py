"""The license that came with a model: small texts beside its weights, fetched apart from them.

They are no part of the source that a conversion reads, so a new wording rebuilds nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from quantmint.assets.mint import Mint
from quantmint.assets.sources import hub
from quantmint.errors import UserError
from quantmint.files import human_bytes
from quantmint.registry.actions import Action, Outcome, perform
from quantmint.registry.store import Blob

# As repositories of the Hub name them: LICENSE, LICENSE.md, LICENSE-CODE, NOTICE.txt, ...
NAMES: Final = re.compile(
    r"(?:MODEL[_-])?(?:LICEN[CS]E|COPYING|NOTICE|USE[_-]POLICY)"
    r"(?:[_-][A-Za-z0-9]+(?:\.[0-9]+)*)*(?:\.(?:md|txt|rst))?",
    re.IGNORECASE,
)
LIMIT: Final = 1 << 20
MOST: Final = 16


def wanted(names: Iterable[str]) -> list[str]:
    """Return the license files among the names of a folder, those of one spelling once."""
    found = {name.casefold(): name for name in sorted(names, reverse=True) if NAMES.fullmatch(name)}
    return sorted(found.values())[:MOST]


def of_hub(mint: Mint, repo: str, sha: str, known: hub.Commit | None = None) -> dict[str, Blob]:
    """Return the license files of a repository's commit by name; the hub is asked once.

    `known` is that commit, where it was looked at already.

    Raises:
        SourceError: the hub can't be reached, or refuses.
        IntegrityError: the bytes that came are not the commit's.
    """
    action = Action(
        name="hub-licenses",
        inputs={"commit": sha},
        tools={},
        arguments={"repo": repo, "names": NAMES.pattern, "limit": LIMIT},
    )

    def fetch() -> Outcome:
        commit = known or hub.resolve(repo, sha)
        sizes = {file.name: file.size for file in commit.files}
        found = {}
        for name in wanted(sizes):
            if _is_small(mint, name, sizes[name]):
                found[name] = hub.fetch_one(mint, commit, name, limit=LIMIT)
        return Outcome(outputs=_texts(mint, found))

    return dict(perform(mint.store, action, fetch).outputs)


def of_folder(mint: Mint, folder: Path) -> dict[str, Blob]:
    """Return the license files that lie in a folder now, by name; none if it is gone.

    Raises:
        UserError: the disk is full.
    """
    if not folder.is_dir():
        mint.report(f"{folder} is gone: no license file is taken along")
        return {}
    found = {}
    for name in wanted(path.name for path in folder.iterdir() if path.is_file()):
        if _is_small(mint, name, (folder / name).stat().st_size):
            found[name] = mint.store.put(folder / name)
    return _texts(mint, found)


def of_file(mint: Mint, path: Path) -> Blob:
    """Return one file that a model file names.

    Raises:
        UserError: there is none, it can't be read, or it is too large to be a license.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT + 1)
    except OSError as error:
        raise UserError(f"the license {path} can't be read: {error.strerror}") from error
    if len(data) > LIMIT or b"\0" in data:
        raise UserError(f"{path} is no license: it is no text of at most {human_bytes(LIMIT)}")
    return mint.store.put_bytes(data)


def _is_small(mint: Mint, name: str, size: int) -> bool:
    if size > LIMIT:
        mint.report(f"{name} is left out: {human_bytes(size)} are more than any license has")
    return 0 < size <= LIMIT


def _texts(mint: Mint, found: dict[str, Blob]) -> dict[str, Blob]:
    """Leave out what is no text: a hub would keep it as a large file."""
    return {name: blob for name, blob in found.items() if b"\0" not in mint.store.read(blob)}
