"""How long a registry asks to wait before the next request."""

from __future__ import annotations

from collections.abc import Mapping

from quantmint.registry.transfer.addresses import waiting_time


def asked_wait(headers: Mapping[str, str], *, is_limited: bool) -> float | None:
    """Return the seconds that an answer asks for, if it does.

    `Retry-After` says it (RFC 9110, section 10.2.3); where a limit was met (`is_limited`, HTTP
    429), so does the Hub's `RateLimit: "api";r=0;t=55` (draft-ietf-httpapi-ratelimit-headers).
    """
    named = {str(name).lower(): str(value) for name, value in headers.items()}
    wait = waiting_time(named.get("retry-after"))
    if wait is not None or not is_limited or "ratelimit" not in named:
        return wait
    from huggingface_hub.utils import parse_ratelimit_headers

    limit = parse_ratelimit_headers(named)
    return float(limit.reset_in_seconds) if limit is not None and limit.remaining == 0 else None
