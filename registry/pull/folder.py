"""A registry in a folder, read only; or a plain folder of files: see docs/publishing.md."""

from __future__ import annotations

import hashlib
import json
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from quantmint.errors import IntegrityError, QuantmintError, RegistryError, UserError
from quantmint.registry.pull.places import File, Listing, check_name, file_of, nonsense
from quantmint.registry.signing.folder import listing as list_folder
from quantmint.registry.signing.folder import read_capped
from quantmint.registry.transfer import Origin

MAIN: Final = "main.json"
_RECORD_LIMIT: Final = 16 << 20
_COMMIT: Final = re.compile(r"([0-9]{8})-([0-9a-f]{32})")
_TAG: Final = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")


@dataclass(frozen=True)
class FolderPlace:
    """A registry in a folder, as `publish` writes it."""

    root: Path
    _at: dict[str, dict[str, str]] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """What references and records call it."""
        return f"file:{self.root}"

    @property
    def owner(self) -> str | None:
        """A folder does not say."""
        return None

    def listing(self, revision: str | None) -> Listing:
        """Return the files of main, of a tag or of a commit."""
        record, digest = self._record(revision)
        rows = _checked(self.name, lambda: self._rows(record))
        commit = digest[:40]
        self._at[commit] = {path: at for path, (_, at) in rows.items()}
        return Listing(commit=commit, files={path: file for path, (file, _) in rows.items()})

    def tags(self) -> tuple[str, ...]:
        """Return the names of its releases."""
        try:
            found = sorted(path.stem for path in (self.root / "tags").glob("[!.]*.json"))
        except OSError:
            return ()
        return tuple(name for name in found if _TAG.fullmatch(name))

    def read(self, listing: Listing, path: str, limit: int) -> bytes:
        """Return the bytes of a small file."""
        return _capped(self.root / self._at[listing.commit][path], limit, self.name)

    def part(self, listing: Listing, path: str, start: int, count: int) -> bytes:
        """Return some bytes of a file."""
        return _part(self.root / self._at[listing.commit][path], start, count)

    def origins(self, listing: Listing) -> tuple[Origin, ...]:
        """Return where the transfer finds the files."""
        return (Origin(self.name, None, dict(self._at[listing.commit])),)

    def _record(self, revision: str | None) -> tuple[Any, str]:
        where = self.root / MAIN
        if revision not in {None, "main"}:
            assert revision is not None
            tag = self.root / "tags" / f"{revision}.json"
            if _COMMIT.fullmatch(revision) is None:
                if _TAG.fullmatch(revision) is None or not tag.is_file():
                    known = ", ".join(self.tags()[-8:]) or "none"
                    raise UserError(
                        f"{self.name} has no release {revision!r}; it has {known}",
                        mend="name one of these behind @",
                    )
                named = _checked(self.name, lambda: json.loads(_capped(tag, 1 << 16, self.name)))
                revision = _checked(self.name, lambda: str(named["commit"]))
            match = _COMMIT.fullmatch(revision)
            if match is None:
                raise nonsense(self.name, "a tag that names no commit")
            where = self.root / "commits" / f"{match[1]}.json"
            data = _capped(where, _RECORD_LIMIT, self.name)
            digest = hashlib.sha256(data).hexdigest()
            if digest[:32] != match[2]:
                raise nonsense(self.name, f"commit {match[1]} is another one than its tag names")
            return _checked(self.name, lambda: json.loads(data)), digest
        data = _capped(where, _RECORD_LIMIT, self.name)
        return _checked(self.name, lambda: json.loads(data)), hashlib.sha256(data).hexdigest()

    def _rows(self, record: Any) -> dict[str, tuple[File, str]]:  # noqa: ANN401
        if record["format"] != 1:
            raise ValueError(f"format {str(record['format'])[:20]}")
        found = {}
        for path, row in record["files"].items():
            file = file_of(path, row["size"], row["sha256"])
            if path == ".gitattributes":
                continue
            if file is None or not isinstance(row["at"], str) or not check_name(row["at"]):
                raise ValueError(f"the file name {path[:80]!r}")
            found[path] = (file, row["at"])
        return found


@dataclass(frozen=True)
class PlainPlace:
    """A folder of files: a release as it was copied, or any GGUF files."""

    root: Path

    @property
    def name(self) -> str:
        """What references and records call it."""
        return f"file:{self.root}"

    @property
    def owner(self) -> str | None:
        """A folder does not say."""
        return None

    def listing(self, revision: str | None) -> Listing:
        """Return its files; their digests come from the manifest, or from hashing them."""
        if revision not in {None, "main"}:
            raise UserError(
                f"{self.name} is a plain folder: it has no release {revision!r}",
                mend="leave out what stands behind @",
            )
        files: dict[str, File] = {}
        skipped = 0
        for path in sorted(list_folder(self.root)):
            file = file_of(path, (self.root / path).lstat().st_size, None)
            if file is None:
                skipped += path.lower().endswith(".gguf")
            else:
                files[path] = file
        return Listing(commit="folder", files=files, skipped=skipped)

    def tags(self) -> tuple[str, ...]:
        """A plain folder has none."""
        return ()

    def read(self, listing: Listing, path: str, limit: int) -> bytes:  # noqa: ARG002
        """Return the bytes of a small file."""
        return _capped(self.root / path, limit, self.name)

    def part(self, listing: Listing, path: str, start: int, count: int) -> bytes:  # noqa: ARG002
        """Return some bytes of a file."""
        return _part(self.root / path, start, count)

    def origins(self, listing: Listing) -> tuple[Origin, ...]:  # noqa: ARG002
        """Return where the transfer finds the files."""
        return (Origin(self.name),)


def folder_place(root: Path) -> FolderPlace | PlainPlace:
    """Return the registry, or the plain folder, that lies there.

    Raises:
        UserError: there is no such folder.
    """
    if not root.is_dir():
        raise UserError(
            f"file:{root} is no registry: there is no such folder",
            mend="check the path behind `file:`",
        )
    if (root / MAIN).exists():
        return FolderPlace(root)
    return PlainPlace(root)


def _capped(path: Path, limit: int, name: str) -> bytes:
    try:
        return read_capped(path, limit)
    except IntegrityError as error:
        raise RegistryError(
            f"{name}: {error.what}", mend="restore it from a copy of the folder"
        ) from None


def _part(path: Path, start: int, count: int) -> bytes:
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise RegistryError(f"{path} is no regular file", mend="copy the folder again")
        with path.open("rb") as file:
            file.seek(start)
            return file.read(count)
    except OSError as error:
        raise RegistryError(f"{path} can't be read: {error.strerror}") from error


def _checked(name: str, make: Any) -> Any:  # noqa: ANN401
    try:
        return make()
    except QuantmintError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise nonsense(name, f"{type(error).__name__} {str(error)[:100]}") from None
