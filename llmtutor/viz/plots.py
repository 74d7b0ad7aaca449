"""Plots, every chapter: one function a kind of figure, labelled axes, lines named where they end.

Every function returns a `matplotlib.figure.Figure`; `llmtutor.viz.show` displays it with its
alternative text. Values are plain numbers, sequences or arrays.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from llmtutor.viz.axes import (
    PLAIN,
    STEPS,
    Values,
    bars_around,
    draw,
    pairs,
    perplexity_axis,
    refuse_empty,
)
from llmtutor.viz.labels import label_at_right
from llmtutor.viz.style import GREY, INK, PALETTE, new_figure, number, style

MASKED = "#e2e2e2", "#a8a8a8"
"""Ground and hatching of cells that have no value."""


def lines(
    x: Values | Mapping[str, Values],
    series: Mapping[str, Values],
    *,
    x_label: str,
    y_label: str,
    title: str = "",
    log: Literal["", "x", "y", "xy"] = "",
    baselines: Mapping[str, float] | None = None,
    around: Mapping[str, Values] | None = None,
) -> Figure:
    """One line for each label, named at its right end, and level lines to compare with.

    ``x`` holds one sequence for all lines, or one for each label. Up to 20 points are marked.
    ``around`` holds for each label how far the interval of a point reaches to either side.
    """
    with style():
        fig, ax = new_figure(x_label, y_label, title)
        points = pairs(x, series)
        draw(ax, points, baselines or {}, log)
        bars_around(ax, points, around or {})
        label_at_right(fig, ax)
        return fig


def loss_curve(
    steps: Values | Mapping[str, Values],
    losses: Values | Mapping[str, Values],
    *,
    floor: float | None = None,
    baselines: Mapping[str, float] | None = None,
    unit: str = "nats per character",
    x_label: str = "training step",
    title: str = "",
) -> Figure:
    """Loss against steps, with perplexity on the right-hand axis.

    ``floor`` is the entropy of the source, below which no honest model comes; ``baselines`` are
    losses of simpler models. ``unit`` is ``"nats per …"`` or ``"bits per …"``.
    """
    base, _, item = unit.partition(" per ")
    if base not in ("nats", "bits") or not item:
        raise ValueError(f"expected a unit like 'nats per token', received {unit!r}")
    if not isinstance(losses, Mapping):
        losses = {"loss": losses}
    levels = dict(baselines or {}) | ({} if floor is None else {"floor": floor})
    with style():
        fig, ax = new_figure(x_label, f"loss ({unit})", title)
        draw(ax, pairs(steps, losses), levels, "")
        perplexity_axis(ax, base, item)
        label_at_right(fig, ax)
        return fig


def bars(
    values: Mapping[str, float], *, value_label: str, category_label: str, title: str = ""
) -> Figure:
    """A horizontal bar for each label, from top to bottom in the order given, with its value."""
    refuse_empty(values)
    with style():
        height = 1.5 + 0.42 * len(values)
        fig, ax = new_figure(value_label, category_label, title, height)
        places = np.arange(len(values))
        drawn = ax.barh(places, list(values.values()), color=PALETTE[0], height=0.7)
        ax.bar_label(drawn, [number(v) for v in values.values()], padding=4, fontsize=13)
        _name_rows(ax, list(values))
        ax.invert_yaxis()
        ax.margins(x=0.15)
        return fig


def intervals(
    rows: Mapping[str, tuple[float, float, float]],
    *,
    x_label: str,
    y_label: str,
    title: str = "",
    marked: Collection[str] = (),
) -> Figure:
    """For each label ``(low, middle, high)``: a bar from low to high with a dot in it.

    The line at 0 is what an interval without an effect holds. Rows in ``marked`` have a full
    colour, blue above 0 and orange below, the others are grey.

    Raises:
        ValueError: no rows, a middle outside its interval, a marked row that is not there.
    """
    refuse_empty(rows)
    for label, (low, middle, high) in rows.items():
        if not low <= middle <= high:
            raise ValueError(
                f"row {label!r}: expected low ≤ middle ≤ high, received {(low, middle, high)}"
            )
    if strange := set(marked) - set(rows):
        raise ValueError(f"marked rows are not among the rows: {sorted(strange)}")
    with style():
        fig, ax = new_figure(x_label, y_label, title, 1.5 + 0.36 * len(rows))
        ax.use_sticky_edges = False  # else the longest bar touches the axis
        ax.vlines(0, -0.7, len(rows) - 0.3, colors=GREY, linestyles="--", linewidth=1.2)
        for place, (label, (low, middle, high)) in enumerate(rows.items()):
            color = PALETTE[0 if middle > 0 else 1] if label in marked else GREY
            ax.barh(place, high - low, left=low, height=0.3, color=color, label=label)
            ax.scatter([middle], [place], s=36, color=INK, zorder=3)
        _name_rows(ax, list(rows))
        ax.set_ylim(len(rows) - 0.3, -0.7)
        return fig


def _name_rows(ax: Axes, names: list[str]) -> None:
    ax.set_yticks(range(len(names)), names)
    ax.grid(visible=False, axis="y")
    ax.xaxis.set_major_formatter(PLAIN)
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=STEPS))


def rank_frequency(counts: Values | Mapping[str, Values], *, title: str = "") -> Figure:
    """Counts from the most to the least frequent on two logarithmic axes; zeros are left out."""
    groups = counts if isinstance(counts, Mapping) else {"counts": counts}
    refuse_empty(groups)
    ranked = {k: np.sort(np.asarray(list(v)))[::-1] for k, v in groups.items()}
    ranked = {k: v[v > 0] for k, v in ranked.items()}
    ranks = {k: np.arange(1, len(v) + 1) for k, v in ranked.items()}
    across, up = "rank (1 = most frequent)", "occurrences"
    return lines(ranks, ranked, x_label=across, y_label=up, title=title, log="xy")


def heatmap(
    matrix: Values,
    *,
    x_label: str,
    y_label: str,
    value_label: str,
    x_ticks: Sequence[str] = (),
    y_ticks: Sequence[str] = (),
    title: str = "",
) -> Figure:
    """A matrix as colours, row 0 on top; up to 150 cells also hold their number.

    A cell that is nan has no value, as what a mask forbids: it is hatched grey, not coloured.
    """
    data = np.asarray(matrix, dtype=float)
    if data.ndim != 2 or not data.size:
        raise ValueError(f"expected a matrix with rows and columns, received shape {data.shape}")
    with style():
        height = float(np.clip(1.8 + 5.0 * data.shape[0] / data.shape[1], 2.4, 6.0))
        fig, ax = new_figure(x_label, y_label, title, height)
        image = ax.imshow(data, cmap="cividis", aspect="auto", interpolation="nearest")
        fig.colorbar(image, ax=ax, label=value_label)
        ax.grid(visible=False)
        ax.patch.set(facecolor=MASKED[0], edgecolor=MASKED[1], hatch="//")
        for axis, ticks in ((ax.xaxis, x_ticks), (ax.yaxis, y_ticks)):
            if ticks:
                axis.set_ticks(range(len(ticks)), list(ticks))
            else:
                axis.set_major_locator(MaxNLocator(8, integer=True))
        if data.size <= 150:
            middle = (np.nanmin(data) + np.nanmax(data)) / 2
            for (row, column), value in np.ndenumerate(data):
                if np.isnan(value):
                    continue
                color = "white" if value < middle else "black"
                ax.text(column, row, number(value), color=color, ha="center", va="center", size=12)
        return fig
