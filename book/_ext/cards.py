"""The picture that stands beside a link to a page where people talk about it.

A card has the title, what one learns, and the first drawing of the page if it has one. matplotlib
draws it, so that it can be made anywhere, without a browser, and is always the same.
"""

import io

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image
from redraw import place

from llmtutor.viz.diagrams.shapes import text_width

WIDTH, HEIGHT = 1200, 630
"""Pixels, as large as the sites that show such pictures ask for."""
MARGIN = 64
ROOM = (640, 150, 1200 - MARGIN, 630 - MARGIN)
"""Where a drawing stands: left, top, right and bottom."""
INK, QUIET, GROUND, RULE = "#1a2733", "#4a5a68", "#f3f6f9", "#cdd6de"
BARS = ((0, 20, 14, "#4c72b0"), (15, 12, 22, "#55a868"), (30, 0, 34, None))
"""The logo: left, top, height and colour; the last one, which is to be predicted, is an outline."""
COLOURS = 128
"""Of the palette: letters and flat shapes need no more."""


def card(title: str, kicker: str, words: str, drawing: str = "") -> bytes:
    """A PNG of 1200 × 630 pixels, the same bytes each time.

    Args:
        title: in large letters.
        kicker: a line above it, such as "Chapter 4".
        words: one or two sentences below it.
        drawing: an ``<svg class="lt-drawing">``, or nothing.
    """
    figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), dpi=72, facecolor=GROUND)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(HEIGHT, 0))
    axes.set_axis_off()
    _logo(axes)
    right = ROOM[0] - 40 if drawing else WIDTH - MARGIN
    y = _lines(axes, kicker, 24, 172, right, QUIET, most=1)
    y = _lines(axes, title, 52, y + 54, right, INK, most=4, bold=True)
    _lines(axes, words, 25, y + 34, right, QUIET, most=(HEIGHT - MARGIN - int(y)) // 36)
    if drawing:
        left, top, end, bottom = ROOM
        panel = FancyBboxPatch(
            (left, top - 60), end - left, bottom - top + 60, "round,pad=0,rounding_size=14"
        )
        axes.add_patch(panel)
        panel.set(facecolor="white", edgecolor=RULE)
        place(axes, drawing, (left + 22, top - 38, end - 22, bottom - 22))
    plain = io.BytesIO()
    figure.savefig(plain, dpi=72, metadata={"Software": None})
    small = io.BytesIO()
    Image.open(plain).convert("RGB").quantize(COLOURS).save(small, "PNG", optimize=True)
    return small.getvalue()


def _logo(axes: Axes) -> None:
    for left, top, height, colour in BARS:
        bar = FancyBboxPatch(
            (MARGIN + 1.3 * left, MARGIN + 1.3 * top),
            13,
            1.3 * height,
            "round,pad=0,rounding_size=4",
        )
        look = {"facecolor": colour, "edgecolor": colour}
        bar.set(**(look if colour else {"facecolor": GROUND, "edgecolor": "#dd8452"}), linewidth=3)
        bar.set_linestyle("-" if colour else (0, (2, 2)))
        axes.add_patch(bar)
    axes.text(MARGIN + 72, MARGIN + 40, "LLM Tutor", size=30, weight="bold", color=INK)


def _lines(
    axes: Axes,
    words: str,
    size: int,
    y: float,
    right: float,
    colour: str,
    most: int,
    bold: bool = False,
) -> float:
    """Write words from the left margin; where the next line would have its top."""
    for line in wrap(words, size, right - MARGIN, most, bold):
        axes.text(
            *(MARGIN, y, line),
            size=size,
            color=colour,
            weight="bold" if bold else "normal",
            parse_math=False,
        )
        y += 1.35 * size
    return y - 0.35 * size


def wrap(words: str, size: float, width: float, most: int, bold: bool = False) -> list[str]:
    """Lines no wider than ``width`` pixels; what has no room in ``most`` lines ends in "…".

    >>> wrap("a long row of words", 20, 120, 2)
    ['a long row', 'of words']
    >>> wrap("a long row of words", 20, 120, 1)
    ['a long…']
    """
    lines, left = [""], words.split()
    while left:
        longer = f"{lines[-1]} {left[0]}".strip()
        if not lines[-1] or text_width(longer, size, bold=bold) <= width:
            lines[-1] = longer
            left.pop(0)
        elif len(lines) < most:
            lines.append("")
        else:
            kept = lines[-1].split()
            while len(kept) > 1 and text_width(" ".join(kept) + "…", size, bold=bold) > width:
                kept.pop()
            lines[-1] = " ".join(kept).rstrip(",;:.") + "…"
            break
    return lines
