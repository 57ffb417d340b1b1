"""What became of the releases of a repository: one small file on its main.

`quantmint.status.json` lives outside any release: publishing says there what was superseded,
yanking says what was withdrawn and why, and a puller reads it before it trusts a tag.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from quantmint.errors import IntegrityError, RegistryError
from quantmint.files import canonical_json
from quantmint.registry.publish.files import STATUS, STATUS_SIGNATURE
from quantmint.registry.publish.target import Entry, Snapshot, Target
from quantmint.registry.store import Blob

LIMIT = 1 << 20
STATUS_TYPE = "application/vnd.quantmint.status.v1+json"
Sign = Callable[[bytes], bytes]
Believe = Callable[[bytes], bytes | None]


class ReleaseStatus(BaseModel):
    """One release: `current`, `superseded` by another, or `yanked` for a reason.

    `files` holds the sha256 of each withdrawn file by path; nobody may use these bytes.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    state: Literal["current", "superseded", "yanked"]
    commit: str | None = None
    by: str | None = None
    reason: str | None = None
    files: Mapping[str, str] = {}


class Status(BaseModel):
    """All releases of a repository, by name."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    format: Literal[1] = 1
    releases: Mapping[str, ReleaseStatus] = {}

    def current(self) -> str | None:
        """Return the release that main carries, if one is named."""
        named = (name for name, row in self.releases.items() if row.state == "current")
        return next(named, None)

    def withdrawn(self) -> dict[str, str]:
        """Return the release by the sha256 of each file that was withdrawn with it."""
        return {
            digest: name
            for name, row in self.releases.items()
            for digest in row.files.values()
            if row.state == "yanked"
        }

    def promoted(self, release: str, parent: str) -> Status:
        """Return the status once `release` took the place of what the commit `parent` carried."""
        rows = dict(self.releases)
        for name, row in self.releases.items():
            if row.state == "current" and name != release:
                rows[name] = ReleaseStatus(state="superseded", commit=parent, by=release)
        rows[release] = ReleaseStatus(state="current")
        return Status(releases=rows)

    def yanked(self, release: str, commit: str, reason: str, files: Mapping[str, str]) -> Status:
        """Return the status once `release` was withdrawn."""
        row = ReleaseStatus(state="yanked", commit=commit, reason=reason, files=dict(files))
        return Status(releases={**self.releases, release: row})

    def without_withdrawals(self) -> Status:
        """Return which releases followed each other, and nothing of what was withdrawn."""
        rows = {name: row for name, row in self.releases.items() if row.state != "yanked"}
        return Status(releases=rows)

    def as_files(self, sign: Sign | None) -> dict[str, bytes]:
        """Return the file, and its signature if there is a signer."""
        body = canonical_json(self.model_dump(exclude_none=True))
        return {STATUS: body} | ({STATUS_SIGNATURE: sign(body)} if sign is not None else {})


def read_status(
    target: Target, head: Snapshot, folder: Path, believe: Believe | None = None
) -> Status:
    """Return the status that main serves; an empty one where there is none.

    With `believe` the signed bytes count, whatever the plain file beside them says. Withdrawals
    that revoked keys alone signed are left out: the publisher's own books have its own.

    Raises:
        RegistryError: it is too large or not in this format.
        IntegrityError: nobody signed it whom `believe` believes.
    """
    if STATUS not in head.files:
        return Status()
    body = _read(target, head, STATUS, folder)
    if believe is not None:
        if STATUS_SIGNATURE not in head.files:
            raise IntegrityError(
                f"{STATUS} on main of {target.name} is not signed: anybody who can write there "
                "may have made it",
                mend=f"see who wrote it; restore both it and {STATUS_SIGNATURE} from an earlier "
                "commit, or remove it",
            )
        signed = believe(_read(target, head, STATUS_SIGNATURE, folder))
        if signed is None:
            return _parsed(target, body).without_withdrawals()
        body = signed
    return _parsed(target, body)


def _parsed(target: Target, body: bytes) -> Status:
    try:
        return Status.model_validate_json(body)
    except ValidationError as error:
        raise _unreadable(target, f"{error.error_count()} faults in it") from None


def _read(target: Target, head: Snapshot, path: str, folder: Path) -> bytes:
    entry = head.files[path]
    if entry.size > LIMIT:
        raise _unreadable(target, f"{path} has {entry.size} bytes")
    return target.fetch(head.commit, path, _expected(entry), folder).read_bytes()


def _expected(entry: Entry) -> Blob:
    return Blob(entry.sha256 or "0" * 64, entry.size)


def _unreadable(target: Target, why: str) -> RegistryError:
    return RegistryError(
        f"{STATUS} on main of {target.name} can't be read: {why}; without it nobody knows which "
        "releases were withdrawn",
        mend=f"restore {STATUS} from an earlier commit, and run again",
    )
