"""The files that say whom this home trusts.

    keys/trusted/<64 hex>.json            a public key, and for which models it counts
    keys/revoked/<64 hex>.json            a key that counts for nothing any more
    keys/seen/<publisher>/<model>/<n>.json  the highest release that was accepted
    keys/withdrawn/<publisher>/<model>/<64 hex>.json  a file of it that nobody may use any more

One file per fact, made whole: no two processes can lose each other's writes, and no lock is
needed. A revocation wins over trust by its mere name, so even a damaged one holds.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from quantmint import names
from quantmint.errors import IntegrityError, UserError
from quantmint.files import canonical_json, fsync_folder, temporary_name, write_whole
from quantmint.registry.signing.ed25519 import PublicKey, read_public_key
from quantmint.registry.strict_json import parse_canonical
from quantmint.registry.trust_policy import (
    ANY,
    Policy,
    Seen,
    Trusted,
    check_scope,
    folded,
    two_faces,
)

SHORTEST_PREFIX: Final = 8
_FILE_LIMIT: Final = 1 << 16


class TrustRoot:
    """The files of a home's `keys` folder that say whom it trusts."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.trusted = root / "trusted"
        self.revoked = root / "revoked"
        self.seen = root / "seen"
        self.withdrawn = root / "withdrawn"

    def policy(self) -> Policy:
        """Read everything.

        Raises:
            UserError: others than the owner could have written it.
            IntegrityError: a file in it is damaged.
        """
        for folder in (self.root, self.trusted, self.revoked, self.seen, self.withdrawn):
            _refuse_writable(folder)
        trusted = {path.stem: _read_trusted(path) for path in _facts(self.trusted)}
        revoked = {path.stem: _reason(path) for path in _facts(self.revoked)}
        found = {name: _highest(folder) for name, folder in _by_identity(self.seen)}
        seen = {name: highest for name, highest in found.items() if highest is not None}
        withdrawn = {
            name: {path.stem: _said(path) for path in _facts(folder)}
            for name, folder in _by_identity(self.withdrawn)
        }
        return Policy(trusted, revoked, seen, withdrawn)

    def trust(self, key: PublicKey, scopes: tuple[str, ...] = (ANY,), label: str = "") -> Trusted:
        """Let a key count for exactly these scopes, and no longer for those it had before.

        Raises:
            UserError: the key is revoked, or a scope or the label is outside its grammar.
        """
        if (self.revoked / f"{key.id}.json").exists():
            raise UserError(
                f"key {key.id} is revoked; it can't be trusted again",
                mend="ask the publisher for the new key"
                f" (a revocation by mistake: rm {self.revoked / key.id}.json)",
            )
        known = self.trusted / f"{key.id}.json"
        if not label and known.exists():
            label = _read_trusted(known).label
        if label:
            names.check(names.TITLE, label, "label of a key")
        trusted = Trusted(key, tuple(sorted({check_scope(scope) for scope in scopes})), label)
        value = {"format": 1, "key": key.text, "scopes": list(trusted.scopes), "label": label}
        self._write(known, value)
        return trusted

    def forget(self, keyid: str) -> None:
        """Trust a key no longer; unlike a revocation this can be taken back."""
        (self.trusted / f"{names.digest(keyid)}.json").unlink(missing_ok=True)

    def revoke(self, keyid: str, reason: str = "") -> None:
        """Let a key count for nothing from now on, whoever trusts it and whenever it signed."""
        value = {"format": 1, "reason": reason[:500]}
        self._write(self.revoked / f"{names.digest(keyid)}.json", value)

    def remember(self, identity: str, seen: Seen) -> None:
        """Note that a release was accepted, so that no older one is taken for the newest.

        Raises:
            IntegrityError: another manifest was accepted under the same number.
        """
        folder = self.seen / folded(identity)
        path = folder / f"{seen.release}.json"
        value = {"format": 1, "manifest": seen.manifest_sha256, "yanked": sorted(seen.yanked)}
        self._make_folder(folder)
        if not _write_new(path, canonical_json(value)):
            known = _read_seen(path)
            if known.manifest_sha256 != seen.manifest_sha256:
                raise two_faces(identity, seen.release)
        for older in _facts(folder):
            if int(older.stem) < seen.release:
                older.unlink(missing_ok=True)

    def withdraw(self, identity: str, digests: Mapping[str, str]) -> None:
        """Note that nobody may use these files of a model any more, and what was said of each.

        It is never taken back: withdrawn bytes are not released again.
        """
        folder = self.withdrawn / folded(identity)
        for digest, said in digests.items():
            path = folder / f"{names.digest(digest)}.json"
            if not path.exists():
                self._write(path, {"format": 1, "said": said[:500]})

    def find(self, word: str) -> str:
        """Return the id of a known key by its beginning (8 digits or more), or a full id.

        Raises:
            UserError: no key begins so, or several do.
        """
        known = {path.stem for path in (*_facts(self.trusted), *_facts(self.revoked))}
        if names.DIGEST.fullmatch(word):
            return word
        found = [keyid for keyid in sorted(known) if keyid.startswith(word)]
        if len(word) < SHORTEST_PREFIX or len(found) != 1:
            why = f"{len(found)} keys begin so" if found else "no known key begins so"
            raise UserError(f"{word[:64]!r} is no id of a key: {why}", mend="quantmint keys list")
        return found[0]

    def _write(self, path: Path, value: object) -> None:
        self._make_folder(path.parent)
        try:
            write_whole(path, canonical_json(value))
        except OSError as error:
            raise UserError(f"{path} can't be written: {error.strerror}") from error

    def _make_folder(self, folder: Path) -> None:
        try:
            self.root.mkdir(parents=True, mode=0o700, exist_ok=True)
            folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{folder} can't be written: {error.strerror}",
                mend="set QUANTMINT_HOME to a folder of your own",
            ) from error
        _refuse_writable(self.root)


def _read_trusted(path: Path) -> Trusted:
    value = _read(path)
    try:
        key = read_public_key(value["key"])
        scopes = tuple(check_scope(scope) for scope in value["scopes"])
        trusted = Trusted(key, scopes, str(value["label"]))
    except (LookupError, TypeError, AttributeError, UserError) as error:
        raise _damaged(path) from error
    if key.id != path.stem or value["format"] != 1:
        raise _damaged(path)
    return trusted


def _reason(path: Path) -> str:
    """Return why a key was revoked; that it was, its file's name alone says."""
    try:
        return str(json.loads(path.read_bytes()[:_FILE_LIMIT])["reason"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return ""


def _said(path: Path) -> str:
    """Return why a file was withdrawn; that it was, its file's name alone says."""
    try:
        return str(json.loads(path.read_bytes()[:_FILE_LIMIT])["said"])[:500]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return "withdrawn"


def _by_identity(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield `publisher/model` and its folder."""
    for publisher in _folders(root):
        for model in _folders(publisher):
            yield f"{publisher.name}/{model.name}", model


def _highest(folder: Path) -> Seen | None:
    paths = [path for path in _facts(folder) if path.stem.isdecimal()]
    return _read_seen(max(paths, key=lambda path: int(path.stem))) if paths else None


def _read_seen(path: Path) -> Seen:
    value = _read(path)
    try:
        yanked = frozenset(names.digest(sha) for sha in value["yanked"])
        return Seen(int(path.stem), names.digest(value["manifest"]), yanked)
    except (LookupError, TypeError, ValueError, UserError) as error:
        raise _damaged(path) from error


def _read(path: Path) -> Any:  # noqa: ANN401
    try:
        return parse_canonical(path.read_bytes(), limit=_FILE_LIMIT, what=path.name)
    except (OSError, IntegrityError) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> IntegrityError:
    return IntegrityError(
        f"{path} can't be read as quantmint wrote it, so nothing is trusted until it is mended",
        mend=f"rm {path}  (then trust the key again, or pull the newest release)",
    )


def _facts(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.glob("[!.]*.json") if not path.is_symlink())
    except FileNotFoundError:
        return []


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.is_dir() and not p.is_symlink())
    except FileNotFoundError:
        return []


def _write_new(path: Path, data: bytes) -> bool:
    """Write a file that is not there yet, whole; False if there is one."""
    staged = temporary_name(path)
    try:
        write_whole(staged, data)
        os.link(staged, path)
    except FileExistsError:
        return False
    finally:
        with contextlib.suppress(FileNotFoundError):
            staged.unlink()
    fsync_folder(path.parent)
    return True


def _refuse_writable(folder: Path) -> None:
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return
    own = found.st_uid in {os.geteuid(), 0}
    if not stat.S_ISDIR(found.st_mode) or not own or found.st_mode & 0o022:
        raise UserError(
            f"{folder} is refused: others could have written to it, so nobody can be trusted",
            mend=f"look at what is in it, then chmod 700 {folder}",
        )
