"""Publishing releases: to a hub or to a folder, staged, read back, promoted in one commit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from quantmint.registry.publish.engine import Options, Published, Release, publish
from quantmint.registry.publish.files import FileSet, ReleaseFile
from quantmint.registry.publish.folder import FolderTarget
from quantmint.registry.publish.hub import HubTarget, hub_target
from quantmint.registry.publish.target import Target
from quantmint.registry.publish.yank import yank


def open_target(
    text: str,
    *,
    endpoint: str | None = None,
    token: str | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Target:
    """Return the target that `file:FOLDER` or `owner/name` (a hub's repository) names.

    Raises:
        UserError: it names neither.
    """
    if text.startswith("file:"):
        return FolderTarget(Path(text.removeprefix("file:")).expanduser().absolute())
    return hub_target(text, endpoint=endpoint, token=token, report=report)


__all__ = [
    "FileSet",
    "FolderTarget",
    "HubTarget",
    "Options",
    "Published",
    "Release",
    "ReleaseFile",
    "Target",
    "hub_target",
    "open_target",
    "publish",
    "yank",
]
