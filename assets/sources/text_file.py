"""A text that a model file names: embedded, on disk, in an installed package, or on the Hub."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from quantmint.assets.mint import Mint
from quantmint.assets.recipe import TextFile
from quantmint.assets.sources import hub
from quantmint.assets.sources.gguf_file import package_file
from quantmint.errors import QuantmintError, SourceError, UserError
from quantmint.files import human_bytes, sha256_of
from quantmint.registry.store import Blob

SIZE_LIMIT = 64 << 20
Role = Literal["calibration", "assay"]


@dataclass(frozen=True, slots=True)
class Text:
    """A text in the store: its bytes, where they came from, and the role that they play."""

    blob: Blob
    origin: str
    role: Role

    @property
    def file_name(self) -> str:
        """A name that says which text it is wherever it lies: it comes into files' bytes."""
        return f"{self.role}-{self.blob.sha256[:16]}.txt"


def embedded_text(role: Role) -> Path:
    """Return the text that this package carries for that role."""
    return Path(str(resources.files("quantmint.assets"))) / "embedded" / "texts" / f"{role}.txt"


def bring_text(mint: Mint, named: str | TextFile, base: Path, role: Role) -> Text:
    """Bring a text into the store; a relative path is relative to `base`.

    Raises:
        UserError: there is no such file, it is too large, or is no UTF-8 text.
        SourceError, IntegrityError: the package or the Hub does not have it, or altered it.
    """
    if isinstance(named, TextFile) and named.hub is not None:
        commit = hub.resolve(named.hub, named.revision, kind=named.kind)
        blob = hub.fetch_one(mint, commit, named.file, limit=SIZE_LIMIT)
        _check(mint.store.path(blob.sha256), f"{named.hub}/{named.file}")
        return Text(blob, f"{commit.endpoint}/{commit.place}/blob/{commit.sha}/{named.file}", role)
    path, origin = _local(named, base, role)
    _check(path, origin)
    return Text(mint.store.put(path), origin, role)


@functools.cache
def _embedded_digest(role: Role) -> str:
    return sha256_of(embedded_text(role))


def text_digest(named: str | TextFile, base: Path, role: Role) -> str:
    """Return the digest of a text at hand, or why there is none: for code versions.

    One on the Hub is an upstream of its own: see `quantmint.assets.upstream`.
    """
    if isinstance(named, TextFile) and named.hub is not None:
        return "on the Hub"
    if named == "default":
        return _embedded_digest(role)
    try:
        return sha256_of(_local(named, base, role)[0])
    except (QuantmintError, OSError):
        return "missing"


def _local(named: str | TextFile, base: Path, role: Role) -> tuple[Path, str]:
    if isinstance(named, TextFile):
        assert named.package is not None
        mend = f"pip install {named.package}"
        return package_file(named.package, named.file, mend=mend), f"{named.package}/{named.file}"
    if named == "default":
        return embedded_text(role), f"embedded {role} text"
    path = (base / Path(named).expanduser()).absolute()
    if not path.is_file():
        raise UserError(
            f"the {role} text {path} is no file",
            mend="correct `text:` in the model file (relative to that file)",
        )
    return path, str(path)


def _check(path: Path, origin: str) -> None:
    if path.stat().st_size > SIZE_LIMIT:
        raise UserError(
            f"{origin} is larger than {human_bytes(SIZE_LIMIT)}",
            mend="name a text: a few hundred kilobytes are enough",
        )
    try:
        path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{origin} is no UTF-8 text: byte {error.start} is out of place",
            mend="name a plain text file",
        ) from None
