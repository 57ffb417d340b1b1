"""The report as one HTML file: no script, nothing loaded, everything that is not ours escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Final

from quantmint.assets.report import tables
from quantmint.assets.report.model import ModelReport
from quantmint.assets.report.plots import GRID, INK, PAPER, Plot

if TYPE_CHECKING:
    from markupsafe import Markup

TEMPLATE: Final = "report.html.j2"
# The plots' own colors give way to the page's, which are others in the dark.
RECOLORED: Final = {INK: "var(--ink)", GRID: "var(--grid)", PAPER: "var(--paper)"}


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot as it stands in the page."""

    name: str
    svg: Markup


def as_html(report: ModelReport, plots: Mapping[str, Plot]) -> bytes:
    """Return the report as one self-contained file in UTF-8."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    # The template is ours; what comes from a model or an upstream is only ever a value in it.
    text = resources.files("quantmint.assets.report").joinpath(TEMPLATE).read_text("utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    optional = [table for table in (tables.tasks(report), tables.speed(report)) if table]
    page = environment.from_string(text).render(
        report=report,
        link=report.about.origin if report.about.origin.startswith("https://") else "",
        overview=tables.overview(report),
        reasons=tables.reasons(report),
        tables=[*tables.quality(report), *optional],
        provenance=tables.provenance(report),
        figures=[
            Figure(name, Markup(inlined(plot.svg.decode(), name)))  # noqa: S704
            for name, plot in plots.items()
        ],
    )
    return page.encode()


def inlined(svg: str, name: str) -> str:
    """Return a plot's SVG for the inside of a page: the page's colors, names of its own.

    matplotlib escapes the text in it.
    """
    start = svg.index("<svg")  # the XML declaration and the document type are no HTML
    svg = svg[start:]
    for color, variable in RECOLORED.items():
        svg = svg.replace(color, variable)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    return re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(
        r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1), count=1)  # fmt: skip
