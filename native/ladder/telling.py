"""Progress in plain lines, for logs and for terminals that no person watches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from quantmint.files import human_bytes
from quantmint.native.ladder.model import Progress

EVERY_SECONDS: Final = 10.0


def plain_lines(say: Callable[[str], None]) -> Callable[[Progress], None]:
    """Return a listener that says bytes and time left every ten seconds, not at every event."""
    told = 0.0

    def tell(now: Progress) -> None:
        nonlocal told
        if now.seconds - told < EVERY_SECONDS or now.done == 0:
            return
        told = now.seconds
        left = now.seconds * (now.total - now.done) / now.done
        done, total = human_bytes(now.done), human_bytes(now.total)
        say(f"{done} of {total} written, {left:.0f} s left")

    return tell
