"""Drawings, chapter 22: a question as texts with their scores, windows over a long text."""

from collections.abc import Sequence

import torch

from llmtutor.evaluate.items import Item
from llmtutor.evaluate.scoring import Score
from llmtutor.evaluate.sliding import windows
from llmtutor.viz.diagrams.language import number
from llmtutor.viz.diagrams.shapes import SMALL, Drawing, Shape, box, column, over, row, space, text

LETTERS = 44
"""Of a context that fit into a line."""
STEP = 20


def draw_item(item: Item, scores: Sequence[Score]) -> Drawing:
    """A question: what is given, and each answer with its score as a whole and per character.

    The right answer has a tick, the largest number of each column stands out.
    """
    shared = len(set(item.contexts)) == 1
    top = [_context(item.contexts[0], "given")] if shared and item.contexts[0] else []
    columns = [text(words, SMALL) for words in ("continuation", "log p", "per character")]
    answers = list(item.answers)
    if not shared:
        answers = [f"…{c[-12:]}| {a}" for c, a in zip(item.contexts, item.answers, strict=True)]
    pills = [
        box(text(f"␣{answer}"[:30], SMALL, mono=True), "token", corner=12) for answer in answers
    ]
    pills[item.gold] = row(pills[item.gold], text("✓"), gap=4)
    sums = [one.log_likelihood for one in scores]
    each = [total / len(answer) for total, answer in zip(sums, item.answers, strict=True)]
    left = max(shape.width for shape in [*pills, columns[0]])
    rows = [_row(columns, left)]
    for pill, total, per in zip(pills, sums, each, strict=True):
        cells = (
            box(text(number(total, 1), SMALL), "new" if total == max(sums) else "plain", width=54),
            box(text(number(per, 2), SMALL), "new" if per == max(each) else "plain", width=70),
        )
        rows.append(_row([pill, *cells], left))
    said = "; ".join(
        f"{answer}: {number(total, 1)}, {number(per, 2)} per character"
        for answer, total, per in zip(item.answers, sums, each, strict=True)
    )
    given = f"Given: {item.contexts[0]}" if shared else "Contexts differ"
    return Drawing(
        column(*top, *rows, gap=7, align="start"),
        "A question as texts to be scored",
        f"{given.rstrip('.')}. Continuations with the sum of log p of their tokens: {said}. The "
        f"right one is {item.answers[item.gold]}; the largest number of each column stands out.",
    )


def draw_windows(n_tokens: int, context: int, stride: int) -> Drawing:
    """The windows that ``rolling`` reads of a text: what each is given, and what it scores.

    A text has ``n_tokens`` behind the start.
    """
    rows: list[Shape] = [_strip("text", ["token"] * (n_tokens + 1), 0, n_tokens + 1)]
    said: list[str] = []
    for cut, first in windows(torch.arange(n_tokens + 1), context, stride):
        begin, end = int(cut[0, 0]), int(cut[0, -1])
        scored = begin + 1 + first
        looks = ["key"] * (scored - begin) + ["new"] * (end + 1 - scored)
        rows.append(_strip(f"window {len(rows)}", looks, begin, n_tokens + 1))
        said.append(f"{len(said) + 1} is given {begin} to {scored - 1}, scores {scored} to {end}")
    key = row(box(text("given", SMALL), "key"), box(text("scored", SMALL), "new"), gap=8)
    return Drawing(
        column(*rows, key, gap=6, align="start"),
        f"Windows of {context} inputs, stride {stride}",
        f"A start, token 0, and {n_tokens} tokens. Window " + "; window ".join(said) + ". Each "
        "token but the start is scored once.",
    )


def _context(words: str, label: str) -> Shape:
    """A context in a box, its end if it is long."""
    lines: list[str] = []
    for word in words.replace("\n", " ⏎ ").split(" "):
        if lines and len(lines[-1]) + len(word) < LETTERS:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    inside = column(*(text(part, SMALL, mono=True) for part in lines), gap=0, align="start")
    return column(text(label, SMALL), box(inside, "key"), gap=3, align="start")


def _row(shapes: Sequence[Shape], left: float) -> Shape:
    """A row of the table: the first cell ``left`` wide, the others under their names."""
    first, second, third = shapes
    return over(
        left + 148,
        max(shape.height for shape in shapes),
        (first, 0, 0),
        (second, left + 12 + (54 - second.width) / 2, 0),
        (third, left + 74 + (74 - third.width) / 2, 0),
    )


def _strip(label: str, looks: Sequence[str], begin: int, n: int) -> Shape:
    """Cells from a place on, numbered, with a name at the left."""
    size = min(STEP, 290 / n)
    cells = [
        box(text(str(begin + i), 9), look, width=size, height=STEP, pad=1, corner=2)
        for i, look in enumerate(looks)
    ]
    name = text(label, SMALL)
    return row(name, space(62 - name.width + begin * size), row(*cells, gap=0), gap=0)
