"""Plots, every chapter: one function a kind of figure, labelled axes, lines named where they end.

Every function returns a `matplotlib.figure.Figure`; `llmtutor.viz.show` displays it with its
alternative text. Values are plain numbers, sequences or arrays.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from llmtutor.viz.axes import (
    PLAIN,
    STEPS,
    Values,
    draw,
    pairs,
    perplexity_axis,
    plain_numbers,
    refuse_empty,
)
from llmtutor.viz.labels import label_at_right
from llmtutor.viz.style import LINE_STYLES, PALETTE, new_figure, number, style


def lines(
    x: Values | Mapping[str, Values],
    series: Mapping[str, Values],
    *,
    x_label: str,
    y_label: str,
    title: str = "",
    log: Literal["", "x", "y", "xy"] = "",
    baselines: Mapping[str, float] | None = None,
) -> Figure:
    """One line for each label, named at its right end, and level lines to compare with.

    ``x`` holds one sequence for all lines, or one for each label. Up to 20 points are marked.
    """
    with style():
        fig, ax = new_figure(x_label, y_label, title)
        draw(ax, pairs(x, series), baselines or {}, log)
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
    base, separator, item = unit.partition(" per ")
    if base not in ("nats", "bits") or not item:
        raise ValueError(
            f"expected a unit like 'nats per token', received {unit!r}{separator and ''}"
        )
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
        ax.set_yticks(places, list(values))
        ax.invert_yaxis()
        ax.margins(x=0.15)
        ax.grid(visible=False, axis="y")
        ax.xaxis.set_major_formatter(PLAIN)
        ax.xaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
        return fig


def histogram(
    values: Values | Mapping[str, Values],
    *,
    x_label: str,
    y_label: str = "count",
    bins: int | Values = 30,
    title: str = "",
) -> Figure:
    """How often values fall into equal bins; several labelled groups share their bins."""
    groups = values if isinstance(values, Mapping) else {"": values}
    refuse_empty(groups)
    edges = np.histogram_bin_edges(np.concatenate([np.asarray(v) for v in groups.values()]), bins)
    with style():
        fig, ax = new_figure(x_label, y_label, title)
        for i, (label, group) in enumerate(groups.items()):
            ax.stairs(
                np.histogram(group, edges)[0],
                edges,
                fill=len(groups) == 1,
                color=PALETTE[i],
                linestyle=LINE_STYLES[i],
                linewidth=2.2,
                label=label or None,
            )
        if len(groups) > 1:
            ax.legend(frameon=False)
        plain_numbers(ax)
        return fig


def rank_frequency(
    counts: Values | Mapping[str, Values],
    *,
    title: str = "",
    x_label: str = "rank (1 = most frequent)",
    y_label: str = "occurrences",
) -> Figure:
    """Counts from the most to the least frequent on two logarithmic axes; zeros are left out."""
    groups = counts if isinstance(counts, Mapping) else {"counts": counts}
    refuse_empty(groups)
    ranked = {k: np.sort(np.asarray(list(v)))[::-1] for k, v in groups.items()}
    ranked = {k: v[v > 0] for k, v in ranked.items()}
    ranks = {k: np.arange(1, len(v) + 1) for k, v in ranked.items()}
    return lines(ranks, ranked, x_label=x_label, y_label=y_label, title=title, log="xy")


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
    """A matrix as colours, row 0 on top; up to 150 cells also hold their number."""
    data = np.asarray(matrix, dtype=float)
    if data.ndim != 2 or not data.size:
        raise ValueError(f"expected a matrix with rows and columns, received shape {data.shape}")
    with style():
        height = float(np.clip(1.8 + 5.0 * data.shape[0] / data.shape[1], 2.4, 6.0))
        fig, ax = new_figure(x_label, y_label, title, height)
        image = ax.imshow(data, cmap="cividis", aspect="auto", interpolation="nearest")
        fig.colorbar(image, ax=ax, label=value_label)
        ax.grid(visible=False)
        for axis, ticks in ((ax.xaxis, x_ticks), (ax.yaxis, y_ticks)):
            if ticks:
                axis.set_ticks(range(len(ticks)), list(ticks))
            else:
                axis.set_major_locator(MaxNLocator(8, integer=True))
        if data.size <= 150:
            middle = (np.nanmin(data) + np.nanmax(data)) / 2
            for (row, column), value in np.ndenumerate(data):
                color = "white" if value < middle else "black"
                ax.text(column, row, number(value), color=color, ha="center", va="center", size=12)
        return fig


def spans(
    rows: Mapping[str, Sequence[tuple[float, float]]],
    *,
    x_label: str,
    y_label: str,
    title: str = "",
) -> Figure:
    """For each row, the stretches ``(start, length)`` it covers: windows, batches, documents."""
    refuse_empty(rows)
    with style():
        fig, ax = new_figure(x_label, y_label, title, 1.5 + 0.42 * len(rows))
        for place, (label, pieces) in enumerate(rows.items()):
            starts, lengths = zip(*pieces, strict=True) if pieces else ((), ())
            ax.barh(
                [place] * len(pieces),
                lengths,
                left=starts,
                height=0.7,
                color=[PALETTE[i % 2 * 4] for i in range(len(pieces))],
                edgecolor="white",
                label=label,
            )
        ax.set_yticks(range(len(rows)), list(rows))
        ax.invert_yaxis()
        ax.grid(visible=False, axis="y")
        ax.xaxis.set_major_formatter(PLAIN)
        return fig
