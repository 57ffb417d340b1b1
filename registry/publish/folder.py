"""A registry in a folder (`file:`): the same steps as on a hub, without a server.

    commits/00000001.json     each commit of main, written once: its parent, where its files lie
    main.json                 the newest of them, for readers; replaced by rename
    releases/<name>-<digest>/ the files of one release under their public names, read-only
    extra/<digest>/           small files between releases: the status and its signature
    tags/<name>.json          which commit a name stands for, written once
    staging/<candidate>/      what is being brought; linked into the release's folder

A commit's number is taken by making a hard link, which fails if the name exists: two publishers
can't both follow the same commit, and no lock is needed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from quantmint.errors import QuantmintError, RegistryError, SourceError, UserError
from quantmint.files import (
    canonical_json,
    clone_or_copy,
    fsync_file,
    fsync_folder,
    full_disk_explained,
    make_folders,
    move_into_place,
    sha256_of,
    sweep_temporaries,
    temporary_name,
    write_whole,
)
from quantmint.registry.publish.engine import moved
from quantmint.registry.publish.files import ATTRIBUTES, FileSet, ReleaseFile
from quantmint.registry.publish.target import Change, Entry, Refs, Snapshot, Staged
from quantmint.registry.store import Blob
from quantmint.registry.trees import check_path

FORMAT: Final = 1
NUMBER: Final = re.compile(r"(\d{8})\.json")
COMMIT: Final = re.compile(r"(\d{8})-([0-9a-f]{32})")
EMPTY: Final = f"{0:08}-{0:032}"
RECORD_LIMIT: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class _Commit:
    """One commit: its name, and of each file the entry and where it lies below the root."""

    name: str
    files: Mapping[str, tuple[Entry, str]]

    @property
    def snapshot(self) -> Snapshot:
        return Snapshot(self.name, {path: entry for path, (entry, _) in self.files.items()})


@dataclass(frozen=True)
class FolderTarget:
    """One repository in a folder."""

    root: Path

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"file:{self.root}"

    def prepare(self, *, private: bool) -> Snapshot:
        """Return main, after making the folders; a private one is closed to other users."""
        with self._explained():
            if private and not self.root.exists():
                self.root.mkdir(parents=True, mode=0o700)
            for folder in ("commits", "releases", "extra", "tags", "staging"):
                make_folders(self.root / folder)
            sweep_temporaries(self.root)
            self._settle()
            return self._head().snapshot

    def refs(self) -> Refs:
        """Return all branches and tags."""
        with self._explained():
            found = (self.root / "staging").iterdir()
            staged = {path.name: path.name for path in found if _is_plain(path.name)}
            tags = {}
            for path in sorted((self.root / "tags").rglob("*.json")):
                label = path.relative_to(self.root / "tags").as_posix().removesuffix(".json")
                tags[label] = _tagged(path)
            return Refs({"main": self._head().name, **staged}, tags)

    def at(self, revision: str) -> Snapshot:
        """Return main, a tag, a commit or a candidate."""
        with self._explained():
            staged = self.root / "staging" / revision
            if _is_plain(revision) and staged.is_dir():
                return self._staged(revision)
            return self._commit(revision).snapshot

    def stage(self, candidate: str, files: FileSet, head: Snapshot) -> Staged:  # noqa: ARG002
        """Copy the files to the staging folder; what lies there whole already is left alone."""
        sent = []
        with self._explained():
            folder = self.root / "staging" / candidate
            make_folders(folder)
            known = {entry.sha256: self.root / at for entry, at in self._head().files.values()}
            for file in files.files:
                path, there = folder / file.path, known.get(file.blob.sha256)
                if _holds(path, file.blob):
                    continue
                if there is not None and _holds(there, file.blob):
                    _link(there, path)
                else:
                    _place(file, path)
                    sent.append(file.path)
            return Staged(self._staged(candidate), tuple(sent))

    def mend(self, files: FileSet) -> tuple[str, ...]:
        """Put back the files of main that are damaged or gone; return their paths."""
        with self._explained():
            rows = self._head().files
            listed = [(f, self.root / rows[f.path][1]) for f in files.files if f.path in rows]
            return tuple(file.path for file, path in listed if self._mended(file, path))

    def fetch(self, revision: str, path: str, blob: Blob, folder: Path) -> Path:  # noqa: ARG002
        """Return the file where it lies."""
        with self._explained():
            staged = self.root / "staging" / revision
            if _is_plain(revision) and staged.is_dir():
                return staged / path
            row = self._commit(revision).files.get(path)
            if row is None:
                raise RegistryError(f"{revision} of {self.name} has no file {path}")
            return self.root / row[1]

    def apply(self, change: Change) -> Snapshot:
        """Make one commit: the staged folder becomes the release's, then main points to it."""
        with self._explained():
            head = self._head()
            if head.name != change.parent.commit:
                if change.is_done(head.snapshot):
                    return head.snapshot
                raise moved(self, change.parent.commit, head.name)
            files = {p: row for p, row in head.files.items() if p not in change.remove}
            if change.put:
                place = self._keep_release(change)
                files |= {f.path: (_entry(f), f"{place}/{f.path}") for f in change.put}
            for file in change.added:
                place = f"extra/{file.blob.sha256[:16]}/{file.path}"
                write_whole(self.root / place, file.read())
                files[file.path] = (_entry(file), place)
            return self._record(head, files, change)

    def tag(self, name: str, commit: str, message: str) -> None:
        """Name a commit; the same name for the same commit is no error."""
        with self._explained():
            path = self.root / "tags" / f"{name}.json"
            row = {"format": FORMAT, "commit": commit, "message": message}
            if not _write_once(path, canonical_json(row)) and _tagged(path) != commit:
                raise RegistryError(
                    f"the tag {name} of {self.name} names another commit already",
                    mend="raise the release number, and release again",
                )

    def drop(self, candidate: str) -> None:
        """Remove a candidate's folder, if it is there."""
        with self._explained():
            shutil.rmtree(self.root / "staging" / candidate, ignore_errors=True)

    def _keep_release(self, change: Change) -> str:
        """Link the staged files into the release's folder, read-only; return its place.

        The staged ones stay until all is done: killed in between, nothing is copied again.
        """
        place = f"releases/{change.label}"
        final = self.root / place
        assert change.staged is not None
        staged = self.root / "staging" / change.staged.commit
        if final.is_dir():  # of a run that was killed, of another publisher, or gone back to
            for file in change.put:
                self._mended(file, final / file.path)
            return place
        whole = temporary_name(staged.with_name(change.label))
        try:
            for file in change.put:
                (staged / file.path).chmod(0o444)
                fsync_file(staged / file.path)
                _link(staged / file.path, whole / file.path)
            move_into_place(whole, final)
        except OSError:
            if not final.is_dir():  # not another publisher of the same files
                raise
        finally:
            shutil.rmtree(whole, ignore_errors=True)
        return place

    def _mended(self, file: ReleaseFile, path: Path) -> bool:
        """Put a file of a release back if other bytes or none are there; return whether it was so.

        Releases share what stays the same by links: every name of the bad one is mended.
        """
        if _holds(path, file.blob):
            return False
        bad = path.stat() if path.is_file() else None
        _place(file, path)
        path.chmod(0o444)
        fsync_file(path)
        for other in (self.root / "releases").rglob("*"):
            if bad is not None and os.path.samestat(other.lstat(), bad):
                _link(path, other)
        return True

    def _record(
        self, head: _Commit, files: Mapping[str, tuple[Entry, str]], change: Change
    ) -> Snapshot:
        rows = {
            path: {"sha256": entry.sha256, "size": entry.size, "at": place}
            for path, (entry, place) in files.items()
        }
        body = canonical_json(
            {"format": FORMAT, "parent": head.name, "title": change.title,
             "description": change.description, "files": rows}
        )  # fmt: skip
        number = int(head.name[:8]) + 1
        if not _write_once(self.root / "commits" / f"{number:08}.json", body):
            raise moved(self, head.name, self._head().name)
        self._settle()
        return _parse(number, body).snapshot

    def _settle(self) -> None:
        """Make `main.json` the newest commit, also if another publisher was quicker or died."""
        while True:
            newest = self._newest()
            if newest == 0:
                return
            body = (self.root / "commits" / f"{newest:08}.json").read_bytes()
            main = self.root / "main.json"
            if not main.is_file() or main.read_bytes() != body:
                write_whole(main, body)
            if self._newest() == newest:
                return

    def _newest(self) -> int:
        found = (NUMBER.fullmatch(path.name) for path in (self.root / "commits").iterdir())
        return max((int(match[1]) for match in found if match), default=0)

    def _head(self) -> _Commit:
        newest = self._newest()
        return self._numbered(newest) if newest else _Commit(EMPTY, {})

    def _numbered(self, number: int) -> _Commit:
        return _parse(number, (self.root / "commits" / f"{number:08}.json").read_bytes())

    def _commit(self, revision: str) -> _Commit:
        if revision == "main":
            return self._head()
        tag = self.root / "tags" / f"{revision}.json"
        if COMMIT.fullmatch(revision) is None and tag.is_file():
            revision = _tagged(tag)
        found = COMMIT.fullmatch(revision)
        if found is None:
            raise UserError(f"{self.name} has no revision {revision[:80]!r}")
        if not (self.root / "commits" / f"{found[1]}.json").is_file():
            raise RegistryError(
                f"{self.name} has lost commit {found[1]}, which was there before: the folder went "
                "back in time, or is no whole copy",
                mend="bring the folder back whole, from a copy that is as new as its tags",
            )
        commit = self._numbered(int(found[1]))
        if commit.name != revision:
            raise RegistryError(f"commit {found[1]} of {self.name} is not {revision}")
        return commit

    def _staged(self, candidate: str) -> Snapshot:
        folder = self.root / "staging" / candidate
        files = (path for path in sorted(folder.rglob("*")) if path.is_file())
        rows = {
            path.relative_to(folder).as_posix(): Entry(path.stat().st_size, sha256_of(path))
            for path in files
            if not path.name.startswith(".") or path.name == ATTRIBUTES
        }
        return Snapshot(candidate, rows)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what the system refuses into an error for people."""
        try:
            with full_disk_explained(self.root):
                yield
        except QuantmintError:
            raise
        except FileNotFoundError as error:
            raise UserError(
                f"{self.name} is no registry: there is no {error.filename}",
                mend="check the path behind `file:`; publishing a release makes the folder",
            ) from error
        except OSError as error:
            raise UserError(
                f"{self.name} can't be used: {error.strerror} ({error.filename})",
                mend="check who may write there, and run again",
            ) from error


def _parse(number: int, body: bytes) -> _Commit:
    """Read a commit; its name holds its number and the digest of its bytes."""
    import hashlib

    with _readable(f"commits/{number:08}.json"):
        if len(body) > RECORD_LIMIT:
            raise ValueError(f"{len(body)} bytes")
        value = json.loads(body)
        if value["format"] != FORMAT:
            raise ValueError(f"format {value['format']}")
        files = {}
        for path, row in value["files"].items():
            for part in (path, row["at"]):
                _check(part)
            files[path] = (Entry(int(row["size"]), str(row["sha256"])), str(row["at"]))
    return _Commit(f"{number:08}-{hashlib.sha256(body).hexdigest()[:32]}", files)


def _tagged(path: Path) -> str:
    """Return the commit that a tag names."""
    with _readable(f"tags/{path.name}"):
        return str(json.loads(path.read_bytes())["commit"])


@contextmanager
def _readable(record: str) -> Iterator[None]:
    """Turn a record that makes no sense into one error."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise RegistryError(
            f"the registry's record {record} can't be read: {type(error).__name__} {error}",
            mend="restore it from a copy of the folder",
        ) from error


def _check(path: str) -> None:
    """Refuse a path that could lead out of the folder."""
    try:
        check_path(path.removesuffix(ATTRIBUTES).removesuffix("/") or "x")
    except SourceError as error:
        raise ValueError(error.what) from None


def _entry(file: ReleaseFile) -> Entry:
    return Entry(file.blob.size, file.blob.sha256)


def _place(file: ReleaseFile, path: Path) -> None:
    """Copy a file so that it appears whole. It shares no inode with the store."""
    if isinstance(file.source, bytes):
        write_whole(path, file.source)
        return
    make_folders(path.parent)
    staged = temporary_name(path)
    try:
        clone_or_copy(file.source, staged)
        fsync_file(staged)
        move_into_place(staged, path)
    finally:
        staged.unlink(missing_ok=True)


def _link(source: Path, path: Path) -> None:
    """Make `path` another name of a file of this registry."""
    make_folders(path.parent)
    staged = temporary_name(path)
    try:
        os.link(source, staged)
        move_into_place(staged, path)
    finally:
        staged.unlink(missing_ok=True)


def _holds(path: Path, blob: Blob) -> bool:
    """Return whether the file is there with these bytes."""
    return path.is_file() and path.stat().st_size == blob.size and sha256_of(path) == blob.sha256


def _write_once(path: Path, body: bytes) -> bool:
    """Write a file that never changes again; False if the name is taken by other bytes."""
    make_folders(path.parent)
    staged = temporary_name(path)
    try:
        write_whole(staged, body)
        with contextlib.suppress(FileExistsError):
            os.link(staged, path)
        fsync_folder(path.parent)
    finally:
        staged.unlink(missing_ok=True)
    return path.read_bytes() == body


def _is_plain(name: str) -> bool:
    return "/" not in name and not name.startswith(".")
