"""The words that signed documents are made of: each with its grammar, its unit and its bound."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from quantmint.errors import QuantmintError
from quantmint.registry.trees import check_path

LARGEST: Final = (1 << 53) - 1  # the largest whole number that every JSON reader keeps exact
TIME_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"
_PART: Final = r"[A-Za-z0-9]+(?:[._-]+[A-Za-z0-9]+)*"
_DOTTED: Final = r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*"


class Signed(BaseModel):
    """Frozen; refuses unknown fields, other types, infinities."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True
    )


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it holds control or formatting characters")
    return text


def _path(text: str) -> str:
    try:
        return check_path(text)
    except QuantmintError as error:
        raise ValueError(error.what) from None


def _time(text: str) -> str:
    if datetime.strptime(text, TIME_FORMAT).strftime(TIME_FORMAT) != text:  # noqa: DTZ007
        raise ValueError("it is no UTC time such as 2026-01-31T12:00:00Z")
    return text


def time_text(moment: datetime) -> str:
    """Return a moment as signed documents write it, whole seconds of UTC.

    Raises:
        ValueError: `moment` has no time zone.
    """
    if moment.tzinfo is None:
        raise ValueError("a moment without a time zone")
    return moment.astimezone(UTC).strftime(TIME_FORMAT)


def moment_of(text: str) -> datetime:
    """Return the moment that a signed document's text names."""
    return datetime.strptime(text, TIME_FORMAT).replace(tzinfo=UTC)


Sha256 = Annotated[
    str, StringConstraints(pattern=r"^[0-9a-f]{64}$"), Field(description="sha256 of the bytes")
]
Commit = Annotated[
    str, StringConstraints(pattern=r"^[0-9a-f]{7,64}$"), Field(description="commit of a repository")
]
Bytes = Annotated[int, Field(ge=0, le=LARGEST, description="size in bytes")]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Positive = Annotated[int, Field(ge=1, le=LARGEST)]
Share = Annotated[float, Field(ge=0, le=1, description="share, 0 to 1")]
NotNegative = Annotated[float, Field(ge=0)]
Line = Annotated[
    str,
    StringConstraints(min_length=1, max_length=1000),
    AfterValidator(_printable),
    Field(description="one line of printable text"),
]
Setting = Annotated[str, StringConstraints(max_length=1000), AfterValidator(_printable)]
Time = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}Z$"),
    AfterValidator(_time),
    Field(description="UTC, whole seconds"),
]
ModelName = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]+([._-][a-z0-9]+)*$", max_length=96)
]
VariantName = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9]+(_[A-Z0-9]+)*$", max_length=96)]
KernelName = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]+([._-][a-z0-9]+)*$", max_length=96)
]
Publisher = Annotated[
    str,
    StringConstraints(pattern=f"^{_DOTTED}$", max_length=96),
    Field(description="the Hub user or organization, or a name of your own"),
]
Title = Annotated[
    str,
    StringConstraints(pattern=f"^{_DOTTED}$", max_length=96),
    Field(description="the public name of the model, as file names carry it"),
]
RepositoryId = Annotated[str, StringConstraints(pattern=f"^{_DOTTED}/{_DOTTED}$", max_length=193)]
ReleaseNumber = Annotated[int, Field(ge=1, le=(1 << 31) - 1, description="1, 2, 3, ...")]
FilePath = Annotated[
    str,
    StringConstraints(pattern=f"^{_PART}(/{_PART})*$", max_length=255),
    AfterValidator(_path),
    Field(description="path in the release folder, parts joined with /"),
]
SourcePath = Annotated[
    str,
    StringConstraints(min_length=1, max_length=512),
    AfterValidator(_path),
    Field(description="path in the source, parts joined with /"),
]


class FileEntry(Signed):
    """One file of a release folder."""

    path: FilePath
    size: Bytes
    sha256: Sha256


class ListedFile(Signed):
    """One file of the source; it is not part of the release."""

    path: SourcePath
    size: Bytes
    sha256: Sha256


class TextEntry(Signed):
    """A text that was measured on or calibrated with."""

    name: Line
    size: Bytes
    sha256: Sha256
