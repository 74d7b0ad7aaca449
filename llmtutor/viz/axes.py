"""Plots, every chapter: what the kinds of figure share: checked data, lines, ticks, second axis."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from llmtutor.viz.style import GREY, INK, LINE_STYLES, MARKERS

Values = Any  # a sequence or an array of numbers
STEPS = (1, 2, 2.5, 5, 10)
PLAIN = FuncFormatter(lambda value, _: f"{value + 0.0:,.10g}")  # 20,000 and 0.3, never 2e4
AROUND = "_around "
"""Before the name of a line: the label of the bars around its points."""
NICE = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)


def refuse_empty(values: Mapping[str, Any]) -> None:
    """``ValueError`` where nothing is to be plotted."""
    if not values:
        raise ValueError("there is nothing to plot: expected at least one labelled value")


def pairs(
    x: Values | Mapping[str, Values], series: Mapping[str, Values]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The points of each line, checked."""
    refuse_empty(series)
    pairs = {}
    for label, values in series.items():
        across = np.asarray(x[label] if isinstance(x, Mapping) else x, dtype=float)
        up = np.asarray(values, dtype=float)
        if across.shape != up.shape or up.ndim != 1 or not up.size:
            raise ValueError(
                f"line {label!r}: expected as many x values as y values and at least one, "
                f"received shapes {across.shape} and {up.shape}"
            )
        pairs[label] = across, up
    return pairs


def draw(
    ax: Axes,
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]],
    levels: Mapping[str, float],
    log: str,
) -> None:
    """Lines with a style of their own each, and grey level lines, the floor in black.

    Both axes have few ticks, written out; ``log`` names the logarithmic ones.
    """
    if "x" in log:
        ax.set_xscale("log")
    if "y" in log:
        ax.set_yscale("log")
    for i, (label, (x, y)) in enumerate(pairs.items()):
        marker = MARKERS[i % len(MARKERS)] if len(x) <= 20 else ""
        ax.plot(x, y, marker=marker, label=label)
    left = min(x.min() for x, _ in pairs.values())
    right = max(x.max() for x, _ in pairs.values())
    for i, (label, level) in enumerate(levels.items()):
        color = INK if label == "floor" else GREY
        dashes = "-" if label == "floor" else LINE_STYLES[1 + i % 3]
        ax.plot([left, right], [level, level], color=color, ls=dashes, lw=1.5, label=label)
    for name, axis in (("x", ax.xaxis), ("y", ax.yaxis)):
        if name not in log:
            axis.set_major_locator(MaxNLocator(6, steps=STEPS))
        axis.set_major_formatter(PLAIN)
        axis.set_minor_locator(NullLocator())
    places = sorted({float(v) for x, _ in pairs.values() for v in x})
    even = len(places) > 2 and np.ptp(np.diff(places)) < 1e-9 * np.ptp(places)
    short = all(float(f"{place:.2g}") == place for place in places)
    if len(places) <= 8 and (even or ("x" in log and short)):
        ax.set_xticks(places)
    elif "x" in log and right < 100 * left:  # powers of ten alone would be one or two
        ax.set_xticks(one_two_five(left, right))


def one_two_five(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten from ``low`` to ``high``.

    >>> one_two_five(1.5, 20)
    [2.0, 5.0, 10.0, 20.0]
    """
    powers = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    return [v for e in powers for m in (1, 2, 5) if low <= (v := m * 10.0**e) <= high]


def bars_around(
    ax: Axes,
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]],
    around: Mapping[str, Values],
) -> None:
    """An upright bar through each point of a line, as far up and down as it is told."""
    colors = {line.get_label(): line.get_color() for line in ax.get_lines()}
    for label, reach in around.items():
        x, y = pairs[label]
        low, high = y - np.asarray(reach, dtype=float), y + np.asarray(reach, dtype=float)
        ax.vlines(
            x, low, high, colors=colors[label], linewidth=2.2, alpha=0.55, label=AROUND + label
        )


def perplexity_axis(ax: Axes, base: str, item: str) -> None:
    """The same heights read as perplexity: exp(nats) or 2**bits."""
    forward, log = (np.exp, np.log) if base == "nats" else (np.exp2, np.log2)

    def back(perplexity: Any) -> Any:
        return log(np.maximum(perplexity, 1e-9))  # matplotlib also asks for the height of 0

    low, high = ax.get_ylim()
    second = ax.secondary_yaxis("right", functions=(forward, back))
    second.set_ylabel(f"perplexity per {item}")
    candidates = [m * 10.0**e for e in range(7) for m in NICE]
    if forward(high) < 3 * forward(low):  # so narrow that even steps fit better
        candidates = list(MaxNLocator(6, steps=STEPS).tick_values(forward(low), forward(high)))
    candidates = [c for c in candidates if low <= back(c) <= high]
    chosen: list[float] = []
    for value in candidates:
        if not chosen or back(value) - back(chosen[-1]) > 0.09 * (high - low):
            chosen.append(value)
    second.yaxis.set_major_locator(FixedLocator(chosen))
    second.yaxis.set_minor_locator(NullLocator())
    second.yaxis.set_major_formatter(PLAIN)
