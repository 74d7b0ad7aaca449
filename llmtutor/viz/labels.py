"""Plots, every chapter: name each line at its right end instead of in a legend."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from llmtutor.viz.style import GREY, INK

SIZE = 13  # points
GAP = 0.04  # of the axes' width, between a line's end and its name: room for the leader


def label_at_right(fig: Figure, ax: Axes) -> None:
    """Write each line's label right of its end, moved apart where two would overlap.

    The x axis grows so that the names stand inside the axes; a thin leader in the line's own
    colour and style joins an end to its name. Where a line ends before the others the leader is
    long, and grey and dotted, so that nobody takes it for more of the line.
    """
    lines = list(ax.get_lines())
    ends = [_end(line) for line in lines]
    texts = [str(line.get_label()) for line in lines]
    last = max(x for x, _ in ends)
    width, height = _text_room(fig, ax, texts)
    _widen(ax, last, GAP + width + GAP / 2)
    wanted = [ax.transAxes.inverted().transform(ax.transData.transform((x, y))) for x, y in ends]
    heights = spread([float(y) for _, y in wanted], height, height / 2, 1 - height / 2)
    for line, (end, _), (x, y), text, place in zip(
        lines, ends, wanted, texts, heights, strict=True
    ):
        color, style = (line.get_color(), line.get_linestyle()) if end == last else (GREY, ":")
        ax.annotate(
            text,
            xy=(float(x), float(y)),
            xycoords="axes fraction",
            xytext=(1 - width - GAP / 2, place),
            textcoords="axes fraction",
            va="center",
            color=INK,
            fontsize=SIZE,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": color,
                "linestyle": style,
                "lw": 1.0,
                "shrinkA": 1,
                "shrinkB": 2,
                "relpos": (0, 0.5),  # from the name's beginning, so that it crosses no other name
            },
        )


def spread(places: list[float], gap: float, low: float = 0.0, high: float = 1.0) -> list[float]:
    """Move places apart until neighbours are ``gap`` apart, as little as possible.

    >>> spread([0.5, 0.5, 0.9], 0.1)
    [0.45, 0.55, 0.9]
    """
    order = np.argsort(places, kind="stable")
    groups: list[list[float]] = []  # [centre of the group, its members]
    for i in order:
        groups.append([min(max(places[i], low), high), 1])
        while len(groups) > 1:
            (c1, n1), (c2, n2) = groups[-2:]
            if c2 - c1 >= gap * (n1 + n2) / 2 - 1e-9:
                break
            groups[-2:] = [[(c1 * n1 + c2 * n2) / (n1 + n2), n1 + n2]]
            half = (groups[-1][1] - 1) / 2 * gap
            groups[-1][0] = min(max(groups[-1][0], low + half), max(high - half, low + half))
    spots = [c + (k - (n - 1) / 2) * gap for c, n in groups for k in range(int(n))]
    moved = [0.0] * len(places)
    for i, spot in zip(order, spots, strict=True):
        moved[i] = round(float(spot), 6)
    return moved


def _end(line: Line2D) -> tuple[float, float]:
    """The last point of a line that is a number."""
    x, y = (np.asarray(v, dtype=float) for v in line.get_data())
    kept = np.flatnonzero(np.isfinite(y))
    last = int(kept[-1]) if kept.size else len(x) - 1
    return float(x[last]), float(y[last]) if kept.size else 0.0


def _text_room(fig: Figure, ax: Axes, texts: list[str]) -> tuple[float, float]:
    """Width of the widest text and height of a line of text, as fractions of the axes."""
    fig.draw_without_rendering()
    renderer = FigureCanvasAgg(fig).get_renderer()
    box = ax.get_window_extent(renderer)
    probes = [ax.text(0, 0, text, fontsize=SIZE) for text in texts]
    extents = [probe.get_window_extent(renderer) for probe in probes]
    for probe in probes:
        probe.remove()
    widest = max(e.width for e in extents) / box.width
    return min(widest, 0.6), 1.15 * max(e.height for e in extents) / box.height


def _widen(ax: Axes, last: float, share: float) -> None:
    """Let the x axis end so far right of ``last`` that ``share`` of the axes stays free."""
    scale = ax.xaxis.get_transform()
    left, right = (float(scale.transform(v)) for v in (ax.get_xlim()[0], last))
    end = left + (right - left or 1.0) / (1 - share)
    slack = 1e-9 * abs(right - left)  # a tick at the very end stays
    ticks = [t for t in ax.get_xticks() if left <= scale.transform(t) <= right + slack]
    ax.set_xlim(float(scale.inverted().transform(left)), float(scale.inverted().transform(end)))
    ax.set_xticks(ticks)
