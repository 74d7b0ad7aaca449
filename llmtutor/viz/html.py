"""Pictures made of text, every chapter: numbers as a table with bars."""

import math
from collections.abc import Sequence
from html import escape

from llmtutor.viz.style import PALETTE, number

TH = "text-align:left;padding-right:0.8em"


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
