"""JSON from outside, read strictly: one reading of it is possible, or it is refused."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from quantmint.errors import IntegrityError
from quantmint.files import canonical_json


def parse_canonical(data: bytes, *, limit: int, what: str) -> Any:  # noqa: ANN401
    """Return the value that `data` holds as canonical JSON (see `files.canonical_json`).

    Canonical bytes leave no room for two readers to see two things: no key stands twice, nothing
    follows the value, numbers have one spelling.

    Raises:
        IntegrityError: it is larger than `limit` bytes, no JSON, or not canonical. `what` names
            the document in the message.
    """
    if len(data) > limit:
        raise IntegrityError(f"{what} is refused: {len(data)} bytes, at most {limit} are read")
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant
        )
        same = canonical_json(value) == data
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{what} is refused: it is no strict JSON ({_brief(error)})") from None
    if not same:
        raise IntegrityError(f"{what} is refused: its JSON is not canonical")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice[:60]!r} stands twice")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _brief(error: Exception) -> str:
    return "nested too deep" if isinstance(error, RecursionError) else str(error)[:160]
