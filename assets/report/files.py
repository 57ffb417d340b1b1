"""The report's files, in the store and in the models folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from quantmint.assets.report.model import ModelReport
from quantmint.files import canonical_json, digest_of
from quantmint.registry.actions import Action, Outcome, perform
from quantmint.registry.store import Blob, Store

# Raise it when the same report shall look otherwise.
LOOKS: Final = 1
HTML: Final = "report.html"
MARKDOWN: Final = "report.md"
JSON: Final = "report.json"
VISIBLE: Final = (HTML, MARKDOWN)


def write_report(store: Store, report: ModelReport) -> dict[str, Blob]:
    """Put the report into the store: `report.html`, `.md`, `.json`, and each plot as SVG and PNG.

    Equal reports give equal bytes, and are drawn once.

    Raises:
        UserError: the disk is full.
    """
    import matplotlib as mpl

    action = Action(
        name="report",
        inputs={"report": digest_of(report.as_json())},
        tools={"matplotlib": mpl.__version__},
        arguments={"looks": LOOKS},
    )

    def make() -> Outcome:
        return Outcome(outputs={n: store.put_bytes(data) for n, data in _files(report).items()})

    return dict(perform(store, action, make).outputs)


def show_report(store: Store, files: Mapping[str, Blob], folder: Path) -> list[Path]:
    """Let a folder hold the report as HTML and Markdown; return where.

    Raises:
        IntegrityError: they are not in the store.
        UserError: the disk is full.
    """
    shown = []
    for name in VISIBLE:
        store.link(files[name], folder / name)
        shown.append(folder / name)
    return shown


def _files(report: ModelReport) -> dict[str, bytes]:
    from quantmint.assets.report.html import as_html
    from quantmint.assets.report.markdown import as_markdown
    from quantmint.assets.report.plots import draw_plots

    plots = draw_plots(report)
    found = {
        HTML: as_html(report, plots),
        MARKDOWN: as_markdown(report),
        JSON: canonical_json(report.as_json()),
    }
    for name, plot in plots.items():
        found |= {f"{name}.svg": plot.svg, f"{name}.png": plot.png}
    return found
