"""Pictures made of text, every chapter: tokens as coloured spans, numbers as a table with bars.

Both carry their own colours, dark on pale or set by the page, so they read on light and dark pages.
"""

import math
from collections.abc import Iterable, Sequence
from html import escape

from llmtutor.viz.style import PALETTE, number

TOKEN_BACKGROUNDS = ("#CFE8FF", "#FFE2C4", "#C9F2DF", "#F6D9EA", "#FFF3B8")
TOKEN_INK = "#1A1A1A"
TH = "text-align:left;padding-right:0.8em"
VISIBLE = {" ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍"}


def token_spans(tokens: Iterable[tuple[str, int | None]]) -> str:
    """HTML with one box a token: its text, spaces and line ends made visible, and its id below.

    Neighbours differ in colour; a token that ends with a line end breaks the line. ``None`` instead
    of an id leaves the number out.
    """
    boxes = []
    for place, (text, token_id) in enumerate(tokens):
        style = (
            f"display:inline-block;background:{TOKEN_BACKGROUNDS[place % len(TOKEN_BACKGROUNDS)]};"
            f"color:{TOKEN_INK};border:1px solid #767676;border-radius:3px;padding:0 3px;"
            "margin:1px;text-align:center;vertical-align:top;white-space:pre"
        )
        shown = escape("".join(VISIBLE.get(c, c) for c in text))
        below = "" if token_id is None else f'<small style="display:block">{token_id}</small>'
        boxes.append(f'<span style="{style}">{shown}{below}</span>')
        if text.endswith("\n"):
            boxes.append("<br>")
    return f'<div style="font-family:monospace;line-height:1.4">{"".join(boxes)}</div>'


def bar_table(
    rows: Sequence[tuple[str, float]], *, columns: tuple[str, str], caption: str = ""
) -> str:
    """An HTML table of labels and numbers, each with a bar as long as its share of the largest.

    ``columns`` names the labels and the numbers, with the unit.
    """
    wrong = [label for label, value in rows if not (math.isfinite(value) and value >= 0)]
    if not rows or wrong:
        problem = f"the value of {wrong[0]!r} is not" if wrong else "no row was given"
        raise ValueError(f"expected rows of a label and a finite number ≥ 0; {problem}")
    largest = max(value for _, value in rows) or 1.0
    head = "".join(f'<th scope="col" style="{TH}">{escape(c)}</th>' for c in columns)
    body = "".join(_bar_row(label, value, value / largest) for label, value in rows)
    title = f'<caption style="caption-side:top">{escape(caption)}</caption>' if caption else ""
    return (
        f'<table style="width:100%;border-collapse:collapse">{title}'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _bar_row(label: str, value: float, share: float) -> str:
    bar = f"display:inline-block;height:0.9em;width:{100 * share * 0.75:.2f}%"
    return (
        f'<tr><th scope="row" style="{TH};font-weight:normal">{escape(label)}</th>'
        f'<td style="width:70%"><span style="{bar};background:{PALETTE[0]}"></span> '
        f"{number(value)}</td></tr>"
    )
