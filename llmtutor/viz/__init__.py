"""Pictures: plots with alternative text, and things to move with and without a kernel."""

from llmtutor.viz.alt import alt_text
from llmtutor.viz.display import show
from llmtutor.viz.explore import explore
from llmtutor.viz.html import bar_table
from llmtutor.viz.plots import bars, heatmap, intervals, lines, loss_curve, rank_frequency

__all__ = [
    "alt_text",
    "bar_table",
    "bars",
    "explore",
    "heatmap",
    "intervals",
    "lines",
    "loss_curve",
    "rank_frequency",
    "show",
]
