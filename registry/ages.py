"""Ages as people write them: `90s`, `30min`, `12h`, `7d`."""

from __future__ import annotations

from typing import Final

from quantmint.errors import UserError

_UNITS: Final = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_age(text: str) -> float:
    """Return the seconds of `90s`, `30min`, `12h`, `7d`, or `0`.

    Raises:
        UserError: it is no age.
    """
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = text[len(number) :]
    if number.isascii() and number.isdecimal() and len(number) <= 9:
        if unit in _UNITS:
            return int(number) * _UNITS[unit]
        if unit == "" and int(number) == 0:
            return 0.0
    raise UserError(f"{text[:40]!r} is no age", mend="write it as 0, 90s, 30min, 12h or 7d")


def show_age(seconds: float) -> str:
    """Return an age for people, in the largest unit that it has one of: `12h`."""
    unit = next((u for u in ("d", "h", "min") if seconds >= _UNITS[u]), "s")
    return f"{seconds / _UNITS[unit]:g}{unit}"
