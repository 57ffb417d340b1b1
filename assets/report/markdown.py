"""The report as Markdown: readable as text, and safe where it is rendered."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from quantmint.assets.report import tables
from quantmint.assets.report.model import ModelReport


def as_markdown(report: ModelReport) -> bytes:
    """Return the report as one Markdown file in UTF-8, without plots."""
    about = report.about
    said = (
        f"{len(report.rows)} variants of {escaped(about.source)}, each file measured as it is: "
        f"{len(report.passed)} passed every gate, {len(report.withheld)} withheld. "
        f"{escaped(about.date)}"
    )
    parts = [f"# {escaped(about.title)}", said, as_table(tables.overview(report))]
    reasons = tables.reasons(report)
    if reasons:
        listed = [f"- **{escaped(which)}**: {escaped(reason)}" for which, reason in reasons]
        parts += ["## Withheld", "\n".join(listed)]
    parts += [as_table(table) for table in tables.quality(report)]
    parts += [as_table(t) for t in (tables.tasks(report), tables.speed(report)) if t is not None]
    for row in report.rows:
        if row.replies:
            parts.append(f"## {escaped(row.variant)} answers")
            parts += [fenced(f"{reply.prompt}\n---\n{reply.text}") for reply in row.replies[:1]]
    facts = [f"- {escaped(name)}: {escaped(value)}" for name, value in tables.provenance(report)]
    parts += ["## What it was made of", "\n".join(facts)]
    return ("\n\n".join(parts) + "\n").encode()


def as_table(table: tables.Table) -> str:
    """Return a table with its heading and note."""
    lines = [_line(table.head), "|---|" + "---:|" * (len(table.head) - 1)]
    lines += [_line(row) for row in table.rows]
    return f"## {escaped(table.title)}\n\n{escaped(table.note)}\n\n" + "\n".join(lines)


def escaped(text: str) -> str:
    """Return text on one line that Markdown and HTML take for nothing but itself."""
    plain = html.escape(" ".join(text.split()), quote=False)
    # An underscore inside a word is only itself; Q4_K_M stays readable.
    return re.sub(r"([\\`*\[\]|~$]|(?<!\w)_|_(?!\w))", r"\\\1", plain)


def fenced(text: str) -> str:
    """Return text as a block of code, whatever fences it holds itself."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(escaped(cell) for cell in cells) + " |"
