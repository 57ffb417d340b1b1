"""Signed documents to canonical bytes and back: one document, one spelling."""

from __future__ import annotations

from typing import Final, TypeVar

from pydantic import ValidationError

from quantmint.errors import IntegrityError
from quantmint.files import canonical_json
from quantmint.registry.manifest.types import Signed
from quantmint.registry.strict_json import parse_canonical

Document = TypeVar("Document", bound=Signed)
MANIFEST_LIMIT: Final = 1 << 20
INDEX_LIMIT: Final = 16 << 20


def to_bytes(document: Signed) -> bytes:
    """Return the document as canonical JSON; fields without a value are left out."""
    return canonical_json(document.model_dump(mode="json", by_alias=True, exclude_none=True))


def from_bytes(
    kind: type[Document], data: bytes, *, what: str, limit: int = MANIFEST_LIMIT
) -> Document:
    """Return the document that `data` is the only spelling of.

    Laws: `from_bytes(kind, to_bytes(d)) == d`, and `to_bytes(from_bytes(kind, b)) == b`.

    Raises:
        IntegrityError: too large, no canonical JSON, unknown or missing fields, values out of
            their grammar. `what` names the document in the message.
    """
    parse_canonical(data, limit=limit, what=what)
    try:
        document = kind.model_validate_json(data)
    except ValidationError as error:
        raise IntegrityError(f"{what} is refused: {first_error(error)}") from None
    if to_bytes(document) != data:  # a null, a default left out, 1 for 1.0
        raise IntegrityError(f"{what} is refused: its JSON is not canonical")
    return document


def first_error(error: ValidationError) -> str:
    """Return where the first error is and what it says."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part)[:60] for part in first["loc"])
    said = first["msg"].removeprefix("Value error, ")
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return (f"{place}: {said}" if place else said) + more
