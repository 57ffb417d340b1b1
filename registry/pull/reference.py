"""References: what a person writes to name a model, a repository, a folder or a file.

phi-3.5-mini-instruct  phi-3.5-mini-instruct:Q4_K_M  phi-3.5-mini-instruct:Q4_K_M@3
hub:owner/name         owner/name:Q4_K_M@main        owner/name@3
file:DIR               file:DIR:Q4_K_M@3
sha256:<64 hex>
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from quantmint import names
from quantmint.errors import UserError

Kind = Literal["model", "hub", "file", "digest"]
REPOSITORY: Final = re.compile(
    r"[A-Za-z0-9]+(?:[._-]+[A-Za-z0-9]+)*/[A-Za-z0-9]+(?:[._-]+[A-Za-z0-9]+)*"
)
_REVISION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,8}")
_AT: Final = re.compile(r"(?P<rest>.+)@(?P<revision>[^@]+)", re.DOTALL)
_COLON: Final = re.compile(r"(?P<rest>.+):(?P<variant>[^:/]+)", re.DOTALL)
_LONGEST: Final = 4096


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference. `name` is a model, `owner/name`, an absolute folder or a digest.

    `release` is a number that was asked for, `revision` any other name of a commit.
    """

    kind: Kind
    name: str
    variant: str | None = None
    release: int | None = None
    revision: str | None = None

    @property
    def place(self) -> str:
        """The place without variant and revision, as references and records name it."""
        prefix = {"model": "", "digest": "sha256:"}.get(self.kind, f"{self.kind}:")
        return prefix + self.name

    def __str__(self) -> str:
        """Return the reference in its full form."""
        at = self.release if self.release is not None else self.revision
        return self.place + (f":{self.variant}" if self.variant else "") + (f"@{at}" if at else "")


def parse_reference(text: str) -> Reference:
    """Parse what a person wrote.

    Raises:
        UserError: it is no reference; nothing of it becomes a path or an address before that.
    """
    if len(text) > _LONGEST or not text.isprintable():
        raise _refused(text, "it is too long, or holds control characters")
    if text.startswith("file:"):
        return _folder(text.removeprefix("file:"))
    if text.startswith("sha256:"):
        return Reference("digest", names.digest(text.removeprefix("sha256:")))
    rest, release, revision = _split_revision(text)
    prefixed = rest.startswith("hub:")
    rest, variant = _split_variant(rest.removeprefix("hub:"))
    if prefixed or "/" in rest:
        if len(rest) > names.LONGEST or REPOSITORY.fullmatch(rest) is None or "--" in rest:
            raise _refused(rest, "a repository is owner/name")
        return Reference("hub", rest, variant, release, revision)
    if revision is not None:
        raise _refused(text, "a model's release is a number, as in @3")
    return Reference("model", names.check(names.MODEL, rest, "model name"), variant, release)


def check_variant(text: str) -> str:
    """Return the name of a variant in capitals.

    Raises:
        UserError: it is outside the grammar.
    """
    return names.check(names.VARIANT, text.upper().removeprefix("UD-"), "name of a variant")


def _folder(text: str) -> Reference:
    """Parse a folder; what looks like a variant or a revision is one unless such a folder is."""
    found = Reference("file", "")
    path = _absolute(text)
    if not path.exists():
        at = _AT.fullmatch(text)
        if at is not None and "/" not in at["revision"]:
            rest, release, revision = _split_revision(text)
            found, text = replace(found, release=release, revision=revision), rest
        if not _absolute(text).exists() and _COLON.fullmatch(text):
            text, variant = _split_variant(text)
            found = replace(found, variant=variant)
        path = _absolute(text)
    return replace(found, name=str(path))


def _absolute(text: str) -> Path:
    if not text:
        raise _refused("file:", "no folder is named")
    return Path(text).expanduser().absolute()


def _split_revision(text: str) -> tuple[str, int | None, str | None]:
    match = _AT.fullmatch(text)
    if match is None:
        return text, None, None
    revision = match["revision"]
    if _NUMBER.fullmatch(revision):
        return match["rest"], int(revision), None
    if len(revision) > names.LONGEST or _REVISION.fullmatch(revision) is None or ".." in revision:
        raise _refused(text, "what stands behind @ is neither a number nor a revision")
    return match["rest"], None, revision


def _split_variant(text: str) -> tuple[str, str | None]:
    match = _COLON.fullmatch(text)
    return (match["rest"], check_variant(match["variant"])) if match else (text, None)


def _refused(text: str, why: str) -> UserError:
    return UserError(
        f"{text[:96]!r} is no reference: {why}",
        mend="write MODEL, MODEL:Q4_K_M, MODEL@3, owner/name, file:DIR or sha256:<64 digits>",
    )
