"""The plots of a report. Equal reports give equal bytes: no dates, no global state, fixed fonts."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from quantmint.assets.report.labels import place_labels
from quantmint.assets.report.model import ModelReport, VariantRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# What a page may exchange for its own colors: see `html.recolored`.
INK: Final = "#2b2f36"
GRID: Final = "#d5d8dd"
PAPER: Final = "#fefefe"
COLORS: Final = (
    "#2f6fde", "#d9822b", "#2e9e6b", "#9a55c9", "#c94a6a", "#5b8a9a", "#8a7a2e", "#6d6ae0",
)  # fmt: skip
REFUSED: Final = "#d43d3d"
LEAST_KLD: Final = 1e-6
DPI: Final = 130
MEGABYTE: Final = 1e6
GIGABYTE: Final = 1e9


@dataclass(frozen=True, slots=True)
class Plot:
    """One figure as SVG and as PNG."""

    svg: bytes
    png: bytes


def draw_plots(report: ModelReport) -> dict[str, Plot]:
    """Return the report's plots by name: `size-kld`, `perplexity` and `speed`.

    A plot without a single measurement is left out.
    """
    measured = [row for row in report.rows if row.divergences]
    timed = [row for row in report.rows if any(on.speeds for on in row.kernels)]
    with _style():
        found: dict[str, Plot] = {}
        if measured:
            found["size-kld"] = _rendered(_size_against_kld(report, measured), "size-kld")
            found["perplexity"] = _rendered(_perplexity(report, measured), "perplexity")
        if timed:
            found["speed"] = _rendered(_speed(report, timed), "speed")
    return found


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()  # whatever the user's own matplotlibrc says
        mpl.rcParams.update({
            "font.family": "DejaVu Sans", "font.size": 10, "svg.fonttype": "none",
            "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK,
            "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False,
            "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
            "grid.color": GRID, "grid.linewidth": 0.6, "figure.facecolor": PAPER,
            "axes.facecolor": PAPER, "legend.frameon": False, "axes.titlelocation": "left",
            "axes.titleweight": "bold", "axes.titlesize": 11,
        })  # fmt: skip
        yield


def _figure(rows: int = 1, *, width: float = 8.0, height: float = 4.6) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, 1, squeeze=False)
    return figure, [row[0] for row in axes]


def _rendered(figure: Figure, name: str) -> Plot:
    import matplotlib as mpl

    svg, png = io.BytesIO(), io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(svg, format="svg", metadata=nothing)
    figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
    return Plot(svg.getvalue(), png.getvalue())


def _size_against_kld(report: ModelReport, rows: Sequence[VariantRow]) -> Figure:
    figure, (axes,) = _figure()
    unit, name = _unit([row.size for row in rows])
    context = rows[0].divergences[0].context
    points: dict[str, tuple[float, float]] = {}
    for row in rows:
        at = row.divergences[0]
        x, y = row.size / unit, max(at.kld_mean, LEAST_KLD)
        points[row.variant] = (x, y)
        color = REFUSED if row.withheld else COLORS[0]
        # A bar down to zero or below has no place on a logarithmic axis.
        low = min(at.kld_error, y * 0.9)
        axes.errorbar(
            x, y, yerr=[[low], [at.kld_error]], marker="X" if row.withheld else "o",
            markersize=8, color=color, capsize=3, linestyle="none", zorder=3,
            markerfacecolor=color if row.pareto or row.withheld else PAPER,
        )  # fmt: skip
    front = sorted(points[row.variant] for row in rows if row.pareto)
    if front:
        axes.step(*zip(*front, strict=True), where="post", color=COLORS[0], alpha=0.5, zorder=2)
    axes.set_yscale("log")
    axes.margins(x=0.08, y=0.12)
    axes.set_xlabel(f"file size ({name})")
    axes.set_ylabel("mean KL divergence to FP16 (nats)")
    axes.set_title(f"{report.about.title}: size against divergence at {context} tokens")
    _legend_of_marks(axes, refused=any(row.withheld for row in rows))
    place_labels(figure, axes, points)
    return figure


def _legend_of_marks(axes: Axes, *, refused: bool) -> None:
    from matplotlib.lines import Line2D

    def mark(label: str, marker: str, color: str, face: str) -> Line2D:
        return Line2D([], [], linestyle="none", marker=marker, markersize=8, color=color,
                      markerfacecolor=face, label=label)  # fmt: skip

    marks = [
        mark("on the Pareto front", "o", COLORS[0], COLORS[0]),
        mark("passed, another is better", "o", COLORS[0], PAPER),
    ]
    if refused:
        marks.append(mark("withheld", "X", REFUSED, REFUSED))
    axes.legend(handles=marks, loc="upper right")


def _perplexity(report: ModelReport, rows: Sequence[VariantRow]) -> Figure:
    figure, (axes,) = _figure(width=_width(len(rows), len(report.contexts)))
    for i, context in enumerate(report.contexts):
        found = [(n, at) for n, row in enumerate(rows) for at in row.divergences
                 if at.context == context]  # fmt: skip
        shift = (i - (len(report.contexts) - 1) / 2) * 0.14
        rope = {at.rope for _, at in found} - {"plain"}
        axes.errorbar(
            [n + shift for n, _ in found], [100 * (at.ppl_ratio - 1) for _, at in found],
            yerr=[100 * at.ppl_ratio_error for _, at in found], marker="o", capsize=3,
            linestyle="none", color=_color(i),
            label=f"{context} tokens" + (f" ({', '.join(sorted(rope))} factors)" if rope else ""),
        )  # fmt: skip
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_xticks(range(len(rows)), [row.variant for row in rows], rotation=30, ha="right")
    axes.set_ylabel("perplexity above FP16's (%)")
    axes.set_title(f"{report.about.title}: perplexity against FP16 on the same text")
    axes.legend(loc="upper left")
    return figure


def _speed(report: ModelReport, rows: Sequence[VariantRow]) -> Figure:
    kernels = report.kernels
    figure, panels = _figure(2, width=_width(len(rows), len(kernels)), height=6.4)
    for axes, kind, what in zip(
        panels, ("prompt", "generation"), ("reading a prompt", "generating"), strict=True
    ):
        tokens = [_bars(axes, rows, kernel, kind, kernels) for kernel in kernels]
        size = max(tokens, default=0)
        axes.set_title(f"{report.about.title}: {what}, {size} tokens")
        axes.set_ylabel("tokens per second")
        axes.set_xticks(range(len(rows)), [row.variant for row in rows], rotation=30, ha="right")
        axes.grid(visible=False, axis="x")
    panels[0].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _bars(
    axes: Axes, rows: Sequence[VariantRow], kernel: str, kind: str, kernels: Sequence[str]
) -> int:
    """Draw one kernel's bars, each with the range of its repetitions; return how many tokens."""
    i, wide = kernels.index(kernel), 0.8 / len(kernels)
    shift = (i - (len(kernels) - 1) / 2) * wide
    found = [
        (n + shift, getattr(on.speeds, kind)[-1])
        for n, row in enumerate(rows)
        for on in row.kernels
        if on.kernel == kernel and on.speeds is not None and getattr(on.speeds, kind)
    ]
    low = [max(0.0, at.median - at.low) for _, at in found]
    high = [max(0.0, at.high - at.median) for _, at in found]
    style: Mapping[str, Any] = {"elinewidth": 0.9, "ecolor": INK, "capsize": min(3, 20 * wide)}
    axes.bar(
        [x for x, _ in found], [at.median for _, at in found], wide, yerr=[low, high],
        color=_color(i), label=kernel, error_kw=style,
    )  # fmt: skip
    return max((at.tokens for _, at in found), default=0)


def _color(i: int) -> str:
    return COLORS[i % len(COLORS)]


def _width(groups: int, each: int) -> float:
    return min(24.0, max(8.0, 0.16 * groups * each + 3.0))


def _unit(sizes: Sequence[int]) -> tuple[float, str]:
    return (GIGABYTE, "GB") if max(sizes) >= GIGABYTE else (MEGABYTE, "MB")
