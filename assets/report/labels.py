"""Labels beside points that lie on each other as little as can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

# Where a label may stand, as shifts in points from its point: near places first.
PLACES: Final = tuple(
    (x * far, y * far) for far, (x, y) in product(
        (8, 16, 26), ((1, 1.1), (1, -0.9), (-1, 0.6), (-1, -0.9), (0, 1.2), (0, -1.5))
    )
)  # fmt: skip
MARK: Final = 6.0


def place_labels(figure: Figure, axes: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """Write each name beside its point (in data coordinates), at the first place that is free.

    A place is free if it covers no point, no label that was placed before and stays inside the
    axes; if none is, the one with the fewest faults is taken.
    """
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()  # lays out the axes, so that data can be turned into pixels
    marks = [axes.transData.transform(point) for point in points.values()]
    taken: list[Bbox] = [Bbox.from_bounds(x - MARK, y - MARK, 2 * MARK, 2 * MARK) for x, y in marks]
    legend = axes.get_legend()
    if legend is not None:
        taken.append(legend.get_window_extent())
    for name, point in points.items():
        tried: list[tuple[int, int, Bbox]] = []
        for i, (x, y) in enumerate(PLACES):
            label = _annotate(axes, name, point, (x, y))
            box = label.get_window_extent()
            tried.append((_faults(box, taken, axes.bbox), i, box))
            label.remove()
            if tried[-1][0] == 0:
                break
        _, best, box = min(tried, key=lambda row: row[:2])
        _annotate(axes, name, point, PLACES[best])
        taken.append(box)


def _annotate(
    axes: Axes, name: str, point: tuple[float, float], at: tuple[float, float]
) -> Annotation:
    sides = {1: "left", 0: "center", -1: "right"}
    return axes.annotate(
        name, point, at, textcoords="offset points", va="center", fontsize=9, zorder=4,
        ha=sides[(at[0] > 0) - (at[0] < 0)],
    )  # fmt: skip


def _faults(box: Bbox, taken: Sequence[Bbox], inside: Bbox) -> int:
    out = not (inside.x0 <= box.x0 and box.x1 <= inside.x1
               and inside.y0 <= box.y0 and box.y1 <= inside.y1)  # fmt: skip
    return sum(box.overlaps(other) for other in taken) + int(out)
