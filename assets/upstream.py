"""What an upstream is right now: looked at cheaply, told apart by the files that count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from quantmint.assets.recipe import Recipe, TextFile
from quantmint.assets.source import source_folder
from quantmint.assets.sources import gguf_file, hub, local
from quantmint.errors import SourceError
from quantmint.files import digest_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One look at an upstream: the files that are read of it, by name, and what tells each apart.

    That is a digest on the Hub, size and time on disk. `version` is the same as long as all of
    them are; `commit` is the Hub's, and may change without them (a new README).
    """

    origin: str
    files: Mapping[str, str]
    commit: hub.Commit | None = None

    @property
    def version(self) -> str:
        """The data version: a digest of `files`."""
        return digest_of(dict(self.files))

    @property
    def sha(self) -> str:
        """The Hub's commit, or an empty string on disk."""
        return self.commit.sha if self.commit is not None else ""


def is_remote(recipe: Recipe) -> bool:
    """Return whether a look at the source needs the network."""
    return recipe.source.hub is not None


def look_at_source(recipe: Recipe, base: Path) -> Seen:
    """Look at a model's source. `base` is the folder of the model file.

    Raises:
        SourceError: the Hub does not answer, or has no such repository.
        UserError: there is no such folder or file.
    """
    source = recipe.source
    if source.hub is not None:
        commit = hub.resolve(source.hub, source.revision)
        origin = f"{commit.endpoint}/{commit.repo}/tree/{commit.sha}"
        return Seen(origin=origin, commit=commit, files=_told_apart(commit.wanted))
    if source.gguf is not None:
        path = gguf_file.locate(source.gguf, base)
        found = path.stat()
        mark = f"{found.st_size} bytes, {found.st_mtime_ns} ns"
        return Seen(origin=str(path), files={path.name: mark})
    folder = source_folder(recipe, base)
    rows = local.fingerprint(folder)
    files = {str(name): f"{size} bytes, {time} ns" for name, size, time, *_ in rows}
    return Seen(origin=str(folder), files=files)


def remote_text(recipe: Recipe) -> TextFile | None:
    """Return the calibration text if it lies on the Hub, else None."""
    text = recipe.imatrix.text if recipe.imatrix is not None else None
    return text if isinstance(text, TextFile) and text.hub is not None else None


def look_at_text(text: TextFile) -> Seen:
    """Look at a text on the Hub.

    Raises:
        SourceError: the Hub does not answer, or has no such repository or file.
    """
    assert text.hub is not None
    commit = hub.resolve(text.hub, text.revision, kind=text.kind)
    files = [file for file in commit.files if file.name == text.file]
    if not files:
        raise SourceError(
            f"{text.hub}@{commit.sha[:12]} has no file {text.file}", mend="correct the model file"
        )
    origin = f"{commit.endpoint}/{commit.place}/blob/{commit.sha}/{text.file}"
    return Seen(origin=origin, commit=commit, files=_told_apart(files))


def _told_apart(files: tuple[hub.RemoteFile, ...] | list[hub.RemoteFile]) -> dict[str, str]:
    return {file.name: file.sha256 or file.git_oid for file in files}
