"""Drawings, chapter 21: the tree of a beam search, a cache that fills, which proposals stand.

The description of a drawing says the numbers that stand in it, so neither can be wrong alone.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from llmtutor.viz.diagrams.language import CELL, number, token
from llmtutor.viz.diagrams.shapes import (
    SMALL,
    Drawing,
    Shape,
    arrow,
    box,
    column,
    line,
    lines,
    over,
    row,
    space,
    text,
)

STOREY, BETWEEN = 46.0, 22.0
"""Of a tree: from one candidate to the one below, and the room for the branches of a step."""
LONG, HIGH = 430.0, 17.0
"""Of a bar: units for a probability of 1, and its height."""


class Candidate(NamedTuple):
    """A text of a beam search, one token longer than those of the step before."""

    total: float
    """Log-probability of the whole text."""
    word: str
    """Its newest token."""
    parent: int
    """Which of the texts kept in the step before it goes on from."""


def draw_beams(prompt: str, steps: Sequence[Sequence[Candidate]], width: int) -> Drawing:
    """The candidates of each step, each with its token's probability and its text's.

    The candidates of a step stand best first, and its first ``width`` are kept.
    """
    root = token(prompt)
    height = STOREY * max(len(step) for step in steps)
    x = root.width
    said: list[str] = []
    totals, ends = [0.0], [(root.width, height / 2)]  # of the texts that were kept, best first
    placed, ways = [(root, 0.0, height / 2 - root.height / 2)], []
    for step in steps:
        left, y = x + BETWEEN, (height - STOREY * len(step)) / 2
        places, told, right = {}, [], left
        # Children of one parent together, so that no branches cross.
        for rank, each in sorted(enumerate(step), key=lambda item: (item[1].parent, item[0])):
            kept = rank < width
            p, joint = math.exp(each.total - totals[each.parent]), math.exp(each.total)
            pill = token(each.word, role="new" if kept else "off")
            shown = f"{number(p, 2)} → {number(joint, 3)}" + ("" if kept else ", dropped")
            note, middle = text(shown, SMALL), y + pill.height / 2
            x0, y0 = ends[each.parent]
            # Straight past the note below, and only then up or down.
            way = [(x0 + 2, y0), (x + 2, y0), (left - 2, middle)]
            ways.append(line(way, "plain" if kept else "off"))
            placed += [(pill, left, y), (note, left, y + pill.height + 1)]
            places[rank] = left + pill.width, middle
            right = max(right, left + pill.width, left + note.width)
            told.append(f"{each.word.strip()!r} {shown}")
            y += STOREY
        x, said = right, [*said, ", ".join(told)]
        totals = [each.total for each in step[:width]]
        ends = [places[rank] for rank in range(len(totals))]
    return Drawing(
        over(x, height, (Shape(0, 0, "".join(ways)), 0, 0), *placed),
        f"A beam search from {prompt.strip()!r}",
        "Of each token its probability → that of its text. "
        + "; ".join(f"step {i}: {words}" for i, words in enumerate(said, 1))
        + ".",
    )


def draw_cache(prompt: Sequence[str], written: Sequence[str]) -> Drawing:
    """The passes that write some tokens: what goes in, what is kept, what comes out."""
    slots = [*prompt, *written[:-1]]
    passes = []
    for i, out in enumerate(written):
        given = list(prompt) if i == 0 else [written[i - 1]]
        n_kept = 0 if i == 0 else len(prompt) + i - 1
        name = f"pass {i + 1}: " + ("prefill, all of the prompt" if i == 0 else "decode, one token")
        way = row(
            *(token(word) for word in given),
            arrow(16),
            box(text("model", SMALL), "weight"),
            arrow(16),
            token(out, role="new"),
            gap=5,
        )
        drawer = row(text("K, V", SMALL), _slots(slots, n_kept, n_kept + len(given)), gap=6)
        passes.append(column(text(name, SMALL, bold=True), way, drawer, gap=4, align="start"))
    legend = row(
        *(_slot("", CELL, "cache"), text("kept", SMALL), space(8)),
        *(_slot("", CELL, "new"), text("new in this pass", SMALL), space(8)),
        *(_slot("", CELL, "plain"), text("still empty", SMALL)),
        gap=4,
    )
    n = len(prompt)
    return Drawing(
        column(*passes, legend, gap=14, align="start"),
        "The cache: one prefill, then a token a pass",
        f"Pass 1 reads the {n} tokens of the prompt {''.join(prompt)!r} together, keeps a key and "
        f"a value of each, and gives {written[0]!r}. "
        + " ".join(
            f"Pass {i + 2} reads {before!r} alone, beside {n + i} kept, and gives {out!r}."
            for i, (before, out) in enumerate(pairwise(written))
        ),
    )


def _slots(names: Sequence[str], n_kept: int, n_filled: int) -> Shape:
    """The drawer of a cache, with the slots that this pass filled standing out."""
    roles = ["cache"] * n_kept + ["new"] * (n_filled - n_kept) + ["plain"] * len(names)
    shown = [name if i < n_filled else "" for i, name in enumerate(names)]
    widths = [max(CELL, text(name.replace(" ", "␣"), SMALL).width + 8) for name in names]
    cells = [
        _slot(name, width, role) for name, width, role in zip(shown, widths, roles, strict=False)
    ]
    return box(row(*cells, gap=2), "plain", dashed=True, pad=5)


def _slot(name: str, width: float, role: str) -> Shape:
    words = text(name.replace(" ", "␣"), SMALL)
    frame = f'<rect class="lt-{role}" width="{width:.4g}" height="{CELL:.4g}"/>'
    inside = words.at((width - words.width) / 2, (CELL - words.height) / 2) if name else ""
    return Shape(width, CELL, frame + inside)


def draw_acceptance(words: Sequence[str], p: Sequence[float], q: Sequence[float]) -> Drawing:
    """Where a draft ``q`` gives too much and where too little, against the model's ``p``."""
    both = [min(a, b) for a, b in zip(p, q, strict=True)]
    accepted = sum(both)
    rows, said = [], []
    left = max(text(name, SMALL).width for name in ("draft q", "model p")) + 6
    for word, a, b, common in zip(words, p, q, both, strict=True):
        bars = column(
            _bar("draft q", left, [(common, "cache"), (b - common, "off")]),
            _bar("model p", left, [(common, "cache"), (a - common, "new")]),
            gap=3,
            align="start",
        )
        rows.append(column(token(word), bars, gap=3, align="start"))
        over_, lacking = number(b - common), number(a - common)
        said.append(
            f"{word.strip()!r}: q {number(b)}, p {number(a)}, accepted {number(common)}"
            + (f", rejected {over_}" if b > a else "")
            + (f", lacking {lacking}" if a > b else "")
        )
    legend = column(
        *(
            row(_slot("", CELL, role), text(words_, SMALL), gap=5)
            for role, words_ in (
                ("cache", f"proposed and accepted, {number(accepted)} together"),
                ("off", f"proposed and rejected, {number(1 - accepted)}"),
                ("new", f"drawn instead, {number(1 - accepted)}"),
            )
        ),
        gap=3,
        align="start",
    )
    return Drawing(
        column(*rows, legend, gap=9, align="start"),
        "What a draft gives too much is drawn again where it gave too little",
        f"{'; '.join(said)}. Accepted in all {number(accepted)}; the other "
        f"{number(1 - accepted)} is drawn again where something is lacking.",
    )


def _bar(name: str, left: float, parts: Sequence[tuple[float, str]]) -> Shape:
    """A name and, beside it, pieces of a bar with their probabilities."""
    label = text(name, SMALL)
    pieces = [_piece(share, role) for share, role in parts if share > 1e-9]
    bar = row(*pieces, gap=0) if pieces else space(0, HIGH)
    return row(space(left - label.width - 6), label, bar, gap=3)


def _piece(share: float, role: str) -> Shape:
    width, words = LONG * share, lines(number(share), SMALL)
    hatch = ""
    if role == "off":
        # None behind the number.
        starts = [x for x in range(4, int(width) - 8, 8) if abs(x + 4 - width / 2) > words.width]
        hatch = "".join(f'<path class="lt-hatch" d="M{x} {HIGH - 2:g}l8 -13"/>' for x in starts)
    frame = f'<rect class="lt-{role}" width="{width:.4g}" height="{HIGH:g}"/>'
    place = words.at((width - words.width) / 2, (HIGH - words.height) / 2)
    return Shape(width, HIGH, frame + hatch + place)
