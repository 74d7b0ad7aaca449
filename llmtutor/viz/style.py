"""Plots, every chapter: colours, line styles, sizes and numbers, the same in every figure.

The palette is that of Okabe and Ito (2008), which people with any colour vision tell apart, without
its yellow, which is too pale on white. The white background stays, so that a figure reads on light
and on dark pages.
"""

from contextlib import AbstractContextManager
from typing import Any

import matplotlib.style
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
LINE_STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 3)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK = "#222222"
GREY = "#595959"
WIDTH, HEIGHT = 6.8, 4.2  # inches at 100 pixels an inch: the width of a page's text column

RC: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 14,
    "axes.prop_cycle": cycler(color=PALETTE) + cycler(linestyle=LINE_STYLES),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.titlesize": 15,
    "axes.titleweight": "bold",
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "figure.facecolor": "white",
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 14,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.8,
    "lines.linewidth": 2.2,
    "lines.markersize": 6,
    "savefig.dpi": 200,
    "savefig.facecolor": "white",
    "svg.fonttype": "none",
    "text.color": INK,
    "xtick.color": GREY,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 13,
    "ytick.color": GREY,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 13,
}


def style() -> AbstractContextManager[None]:
    """Matplotlib with the look of the book; outside this context nothing changes."""
    return matplotlib.style.context(RC, after_reset=True)


def new_figure(
    x_label: str, y_label: str, title: str, height: float = HEIGHT
) -> tuple[Figure, Axes]:
    """A figure of the page's width with labelled axes; ``ValueError`` where a label is missing."""
    for axis, label in (("x", x_label), ("y", y_label)):
        if not label.strip():
            raise ValueError(f"the {axis} axis has no label: say what is plotted and its unit")
    fig = Figure(figsize=(WIDTH, height))
    FigureCanvasAgg(fig)
    ax = fig.add_subplot()
    ax.set(xlabel=x_label, ylabel=y_label)
    if title:
        ax.set_title(title, wrap=True)  # too long a title goes on in a second line
    return fig, ax


def number(value: float) -> str:
    """A number with three significant digits; a whole number below 100,000 with all of them.

    >>> number(0.0012345), number(5057198), number(4096.0), number(-1.5)
    ('0.00123', '5,060,000', '4,096', '-1.5')
    """
    value = float(value)
    if value == 0 or value != value or abs(value) == float("inf"):
        return f"{value:g}"
    if not 1e-5 <= abs(value) < 1e15:
        return f"{value:.3g}"
    if value.is_integer() and abs(value) < 100_000:
        return f"{value:,.0f}"
    return f"{float(f'{value:.3g}'):,.10f}".rstrip("0").rstrip(".")
