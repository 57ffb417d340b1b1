"""Tables for people: aligned columns of plain text."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[object]], *, right: str = "") -> str:
    """Return rows under a head, columns two spaces apart.

    `right` holds one letter per column: `r` sets that column flush right.
    """
    cells = [[str(value) for value in row] for row in (head, *rows)]
    widths = [max(_width(row[i]) for row in cells) for i in range(len(head))]
    lines = []
    for row in cells:
        parts = []
        for i, text in enumerate(row):
            gap = " " * (widths[i] - _width(text))
            parts.append(gap + text if right[i : i + 1] == "r" else text + gap)
        lines.append("  ".join(parts).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def wrapped(head: Sequence[str], rows: Sequence[Sequence[object]], *, columns: int) -> str:
    """Return a table whose last column is wrapped so that no line is longer than `columns`."""
    cells = [[str(value) for value in row] for row in rows]
    used = sum(max(_width(row[i]) for row in (head, *cells)) + 2 for i in range(len(head) - 1))
    room = max(columns - used, 20)
    lines: list[list[str]] = []
    for row in cells:
        first, *more = textwrap.wrap(row[-1], room, break_on_hyphens=False) or [""]
        lines.append([*row[:-1], first])
        lines.extend([*([""] * (len(row) - 1)), part] for part in more)
    return table(head, lines)


def _width(text: str) -> int:
    """Return how many columns a terminal takes for the text."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
