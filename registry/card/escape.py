"""Foreign text in Markdown: it is shown, and never taken for markup, a link or a mention."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

# An underscore inside a word is only itself: Q4_K_M stays readable.
_MARKUP = re.compile(r"([\\`*\[\]|~$!#]|(?<!\w)_|_(?!\w))")
# What GitHub's flavor makes a link of without any markup.
_BARE = (("://", "&#58;//"), ("www.", "www&#46;"), ("@", "&#64;"))


def escaped(text: str) -> str:
    """Return text on one line that Markdown and HTML take for nothing but itself."""
    plain = html.escape(" ".join(text.split()), quote=False)
    plain = _MARKUP.sub(r"\\\1", plain)
    for bare, written in _BARE:
        plain = plain.replace(bare, written)
    # At the start of a line these begin a list, a quote or a rule.
    return re.sub(r"^([-+=>]|\d+[.)])", r"&#8203;\1", plain)


def code(text: str) -> str:
    """Return text as a span of code on one line, whatever backticks it holds."""
    plain = " ".join(text.split())
    longest = max((len(run) for run in re.findall(r"`+", plain)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest or not plain else ""
    return f"{fence}{pad}{plain}{pad}{fence}"


def fenced(text: str, language: str = "text") -> str:
    """Return text as a block of code, whatever fences it holds itself."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of cells that are Markdown already; all columns but the first to the right."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
