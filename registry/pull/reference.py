"""References: what a person writes to name a model, a repository, a folder or a file.

phi-3.5-mini-instruct  phi-3.5-mini-instruct:Q4_K_M  phi-3.5-mini-instruct:Q4_K_M@3
hub:owner/name         owner/name:Q4_K_M@main        owner/name@3
file:DIR               file:DIR:Q4_K_M@3
import:owner/name      import:MODEL:Q4_K_M     an archive for which nobody vouches
sha256:<64 hex>
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from quantmint import names
from quantmint.errors import UserError

Kind = Literal["model", "hub", "file", "import", "digest"]
MADE_HERE: Final = "made here"
IMPORTED: Final = "import:"
REPOSITORY: Final = re.compile(
    r"[A-Za-z0-9]+(?:[._-]+[A-Za-z0-9]+)*/[A-Za-z0-9]+(?:[._-]+[A-Za-z0-9]+)*"
)
_REVISION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_COMMIT: Final = re.compile(r"(?:[0-9a-f]{40}|folder)?")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,8}")
_AT: Final = re.compile(r"(?P<rest>.+)@(?P<revision>[^@]+)", re.DOTALL)
_COLON: Final = re.compile(r"(?P<rest>.+):(?P<variant>[^:/]+)", re.DOTALL)
_LONGEST: Final = 4096


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference. `name` is a model, `owner/name`, an absolute folder or a digest; for
    an import it is what the archive says of itself, a model or `owner/name`.

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
    if rest.startswith(IMPORTED):
        rest, variant = _split_variant(rest.removeprefix(IMPORTED))
        return Reference("import", _imported_name(rest), variant, release, revision)
    prefixed = rest.startswith("hub:")
    rest, variant = _split_variant(rest.removeprefix("hub:"))
    if prefixed or "/" in rest:
        if not is_repository(rest):
            raise _refused(rest, "a repository is owner/name")
        return Reference("hub", rest, variant, release, revision)
    if revision is not None:
        raise _refused(text, "a model's release is a number, as in @3")
    return Reference("model", names.check(names.MODEL, rest, "model name"), variant, release)


def check_variant(text: str) -> str:
    """Return the name of a variant in capitals, without what `variant_of` leaves out.

    Raises:
        UserError: it is outside the grammar.
    """
    name = text.upper().removeprefix("I1-")
    return names.check(names.ANY_VARIANT, name, "name of a variant")


def is_repository(text: str) -> bool:
    """Return whether a text is `owner/name` of a hub."""
    return (
        len(text) <= names.LONGEST and REPOSITORY.fullmatch(text) is not None and "--" not in text
    )


def check_place(text: object) -> str:
    """Return a place as records name it, if it is one: paths are made of it. No disk is asked.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(text, str):
        raise ValueError("the place is no text")  # noqa: TRY004 - what it holds makes no sense
    kind, _, name = text.partition(":")
    if text == MADE_HERE or (kind == "hub" and is_repository(name)):
        return text
    if kind == "file" and name.startswith("/") and len(name) <= _LONGEST:
        return text
    if kind == "import" and (is_repository(name) or _is_model(name)):
        return text
    raise ValueError(f"the place {text[:80]!r}")


def check_commit(text: object) -> str:
    """Return a commit as records name it: of a hub or a registry, of a plain folder, or none.

    Raises:
        ValueError: it is none; the Hub's cache has folders of that name.
    """
    if not isinstance(text, str) or _COMMIT.fullmatch(text) is None:
        raise ValueError("the commit")
    return text


def imported_place(place: str, model: str) -> str:
    """Return the place of what an archive says that it is, while nobody vouches for it."""
    if place.startswith(IMPORTED):
        return place
    return IMPORTED + (place.removeprefix("hub:") if place.startswith("hub:") else model)


def _imported_name(text: str) -> str:
    return text if is_repository(text) else names.check(names.MODEL, text, "model name")


def _is_model(text: str) -> bool:
    return len(text) <= names.LONGEST and names.MODEL.fullmatch(text) is not None


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
