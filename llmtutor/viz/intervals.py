"""Plots, every chapter: estimates with their intervals, one below the other."""

from collections.abc import Collection, Mapping

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from llmtutor.viz.axes import PLAIN, STEPS, refuse_empty
from llmtutor.viz.style import GREY, INK, PALETTE, new_figure, style


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
    colour, the others are grey.

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
            color = PALETTE[0] if label in marked else GREY
            ax.barh(place, high - low, left=low, height=0.3, color=color, label=label)
            ax.scatter([middle], [place], s=36, color=INK, zorder=3)
        ax.set_yticks(range(len(rows)), list(rows))
        ax.set_ylim(len(rows) - 0.3, -0.7)
        ax.grid(visible=False, axis="y")
        ax.xaxis.set_major_formatter(PLAIN)
        ax.xaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
        return fig
