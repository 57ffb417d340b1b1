"""How long a registry asks to wait before the next request."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping
from typing import Final

_LONGEST_WAIT: Final = 31 * 86_400.0


def asked_wait(headers: Mapping[str, str], *, is_limited: bool) -> float | None:
    """Return the seconds that an answer asks for, if it does.

    `Retry-After` says it (RFC 9110, section 10.2.3); where a limit was met (`is_limited`, HTTP
    429), so does the Hub's `RateLimit: "api";r=0;t=55` (draft-ietf-httpapi-ratelimit-headers).
    What makes no sense, or asks for more than a month, asks for nothing.
    """
    named = {str(name).lower(): str(value) for name, value in headers.items()}
    wait = _retry_after(named.get("retry-after", ""))
    if wait is None and is_limited and "ratelimit" in named:
        from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

        limit = parse_ratelimit_headers({"ratelimit": named["ratelimit"][:100]})
        if limit is not None and limit.remaining == 0:
            wait = float(limit.reset_in_seconds)
    return max(0.0, wait) if wait is not None and wait <= _LONGEST_WAIT else None


def _retry_after(text: str) -> float | None:
    text = text.strip()[:100]
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        return email.utils.parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        return None
