"""Plots, every chapter: the alternative text of a figure, computed from what is drawn in it."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.category import StrCategoryLocator
from matplotlib.collections import Collection
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator

from llmtutor.viz.axes import AROUND
from llmtutor.viz.style import number

MOST_NAMED = 8  # bars or stretches that are read out one by one


def alt_text(fig: Figure) -> str:
    """What a figure shows, in words: axes with their ranges, then each line, bar or matrix.

    Numbers have three significant digits. Nothing but the drawn data is read, so the text cannot
    drift from the picture.

    >>> from llmtutor.viz.plots import bars
    >>> alt_text(bars({"the": 20, "and": 5}, value_label="share (%)", category_label="word"))
    'x axis: share (%). y axis: word. 2 bars: the 20, and 5. Largest: the 20; smallest: and 5.'
    """
    parts = []
    for ax in fig.axes:
        if ax.get_label() != "<colorbar>" and (drawn := _drawn(ax)):
            parts += [*_frame(ax), *drawn]
    if not parts:
        raise ValueError("the figure is empty: expected at least one axes with data")
    return " ".join(parts)


def _drawn(ax: Axes) -> list[str]:
    texts = [_line_text(line) for line in ax.get_lines() if np.size(line.get_xdata())]
    texts += [_around_text(c) for c in ax.collections if str(c.get_label()).startswith(AROUND)]
    texts += [_bars_text(ax, c) for c in ax.containers if isinstance(c, BarContainer)]
    texts += [_image_text(ax, image) for image in ax.get_images()]
    return texts


def _frame(ax: Axes) -> list[str]:
    """The title, and each axis with its label, and whether it is logarithmic or a second one."""
    title = ax.get_title(loc="left") or ax.get_title()
    texts = [f"{title.rstrip('.')}."] if title else []
    for axis, name in ((ax.xaxis, "x"), (ax.yaxis, "y")):
        scale = ", logarithmic" if axis.get_scale() == "log" else ""
        texts.append(f"{name} axis: {axis.get_label_text()}{scale}.")
    for child in ax.child_axes:
        if child.get_ylabel():
            texts.append(f"Second y axis: {child.get_ylabel()}.")
    return texts


def _line_text(line: Line2D) -> str:
    x, y = (np.asarray(v, dtype=float) for v in line.get_data())
    kept = np.isfinite(y)
    x, y = x[kept], y[kept]
    label = str(line.get_label())
    if not y.size:
        return f"Line “{label}”: no finite value."
    if len(y) == 2 and y[0] == y[1]:
        return f"Level line “{label}” at {number(y[0])}."
    start, end = (f"{number(y[i])} at {number(x[i])}" for i in (0, -1))
    text = f"Line “{label}”: from {start} to {end}"
    low, high = int(np.argmin(y)), int(np.argmax(y))
    if y[low] < min(y[0], y[-1]):
        text += f", lowest {number(y[low])} at {number(x[low])}"
    if y[high] > max(y[0], y[-1]):
        text += f", highest {number(y[high])} at {number(x[high])}"
    return f"{text}."


def _around_text(bars: Collection) -> str:
    heights = [float(np.ptp(np.asarray(path.vertices)[:, 1])) / 2 for path in bars.get_paths()]
    label, low, high = str(bars.get_label()).removeprefix(AROUND), min(heights), max(heights)
    span = (
        f"{number(low)}" if np.isclose(low, high, rtol=1e-3) else f"{number(low)} to {number(high)}"
    )
    return f"Intervals of “{label}”: ± {span}."


def _bars_text(ax: Axes, bars: BarContainer) -> str:
    level = bars.orientation == "horizontal"
    label = str(bars.get_label())
    spans = [_span(patch, level) for patch in bars.patches]
    if level and label and not label.startswith("_"):  # stretches of one labelled row
        return f"Row “{label}”: {_some([f'{number(a)} to {number(b)}' for a, b in spans])}."
    names = _names(ax.yaxis if level else ax.xaxis)
    # The middle of two edges misses a whole number by a rounding error now and then.
    centres = [round(sum(_span(patch, not level)) / 2, 6) for patch in bars.patches]
    values = [end - start for start, end in spans]
    pieces = [
        f"{names.get(centre, number(centre))} {number(value)}"
        for centre, value in zip(centres, values, strict=True)
    ]
    largest, smallest = int(np.argmax(values)), int(np.argmin(values))
    return (
        f"{len(values)} bars: {_some(pieces)}. Largest: {pieces[largest]}; "
        f"smallest: {pieces[smallest]}."
    )


def _span(bar: Rectangle, level: bool) -> tuple[float, float]:
    """Where a bar begins and ends, along the x axis if ``level``, else along the y axis."""
    start, length = (bar.get_x(), bar.get_width()) if level else (bar.get_y(), bar.get_height())
    return float(start), float(start + length)


def _names(axis: Axis) -> dict[float, str]:
    """The places on an axis that have a name instead of a number."""
    if not isinstance(axis.get_major_locator(), FixedLocator | StrCategoryLocator):
        return {}
    places = [round(float(place), 6) for place in axis.get_ticklocs()]
    return dict(zip(places, axis.get_major_formatter().format_ticks(places), strict=True))


def _some(pieces: list[str]) -> str:
    if not pieces:
        return "nothing"
    more = len(pieces) - MOST_NAMED
    return ", ".join(pieces[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _image_text(ax: Axes, image: AxesImage) -> str:
    data: np.ndarray = np.ma.filled(np.ma.asarray(image.get_array(), dtype=float), np.nan)
    value = image.colorbar.ax.get_ylabel() if image.colorbar else "value"
    low = np.unravel_index(int(np.nanargmin(data)), data.shape)
    high = np.unravel_index(int(np.nanargmax(data)), data.shape)
    rows, columns = data.shape[:2]
    n_empty = int(np.isnan(data).sum())
    empty = f", {n_empty:,} without a value" if n_empty else ""
    return (
        f"Matrix of {rows} rows and {columns} columns, {value}: lowest {number(data[low])} at "
        f"{_cell(ax, low)}, highest {number(data[high])} at {_cell(ax, high)}{empty}."
    )


def _cell(ax: Axes, index: tuple) -> str:
    """A cell named by its tick labels, where it has them, else by its place."""
    row, column = (float(i) for i in index[:2])
    rows, columns = _names(ax.yaxis), _names(ax.xaxis)
    return f"row {rows.get(row, number(row))}, column {columns.get(column, number(column))}"
