"""Drawings, chapter 02: pages on their way into a corpus, windows that overlap, rows of documents.

What stands in a drawing comes from the objects of the chapter: texts, sets, ids, packed rows.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch

from llmtutor.data.packing import PADDING, Rows
from llmtutor.viz.diagrams.language import CELL, mask
from llmtutor.viz.diagrams.shapes import (
    SMALL,
    Drawing,
    Shape,
    arrow,
    box,
    column,
    line,
    named,
    over,
    row,
    space,
    text,
)

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def draw_pipeline(stages: Mapping[str, Mapping[str, int]], unit: str = "words") -> Drawing:
    """Documents from stage to stage, each with its size; what is missing was dropped.

    ``stages`` maps the name of a stage to the documents behind it, by name, and their sizes. All
    that any stage has are in the first.
    """
    names = list(next(iter(stages.values())))
    width = max(CELL, *(text(name, SMALL).width + 4 for name in names))
    rows: list[Shape] = [row(*(_wide(text(name, SMALL), width) for name in names), gap=2)]
    said = []
    before = set(names)
    for stage, sizes in stages.items():
        cells = []
        for name in names:
            if name in sizes:
                cells.append(box(text(f"{sizes[name]}", SMALL), "token", width=width, pad=3))
            else:
                looks = "off" if name in before else "plain"
                cells.append(_dropped(width) if looks == "off" else space(width))
        lost = [name for name in names if name in before and name not in sizes]
        gone = f", dropped: {', '.join(lost)}" if lost else ""
        said.append(f"{stage}: {', '.join(f'{n} {k}' for n, k in sizes.items())}{gone}")
        plural = "s" * (len(sizes) != 1)
        label = f"{stage}: {len(sizes)} document{plural}, {sum(sizes.values()):,} {unit}"
        rows.append(column(text(label, SMALL), row(*cells, gap=2), gap=3))
        before = set(sizes)
    return Drawing(
        column(*rows, gap=9),
        "Pages on their way into a corpus",
        f"Each column is a page, each row a stage, each number its {unit}. {'. '.join(said)}.",
    )


def draw_overlap(words: Sequence[str], size: int, held_out: int) -> Drawing:
    """All windows of ``size`` words, one of which is held out while its neighbours are not."""
    widths = [text(word, SMALL).width + 12 for word in words]
    rows, said = [], []
    for start in range(len(words) - size + 1):
        inside = range(start, start + size)
        role = "new" if start == held_out else "token"
        cells = [
            box(text(word, SMALL), role, width=widths[i], pad=2, corner=0)
            if i in inside
            else space(widths[i])
            for i, word in enumerate(words)
        ]
        label = text("held out" if start == held_out else "training", SMALL)
        rows.append(row(_wide(label, 54), *cells, gap=2))
        said.append(" ".join(words[start : start + size]))
    others = [s for i, s in enumerate(said) if i != held_out]
    return Drawing(
        column(*rows, gap=4, align="start"),
        f"Windows of {size} words, one of them held out",
        f"Held out is: {said[held_out]}. In training are: {'; '.join(others)}. Each pair of "
        "neighbouring words of the held-out window stands in a window above or below it.",
    )


def draw_minhash(
    a: Collection[str], b: Collection[str], orders: Sequence[Sequence[str]]
) -> Drawing:
    """Two sets of words under some orders: the first of each, and whether it is the same word."""
    shared = set(a) & set(b)
    rows, said = [], []
    for order in orders:
        pills = []
        for word in order:
            looks = "token" if word in shared else "plain"
            first = word == order[0]
            pill = box(
                text(word, SMALL, bold=first),
                "new" if first else looks,
                corner=9,
                pad=5,
                dashed=word not in shared,
            )
            pills.append(pill)
        equal = order[0] in shared
        verdict = text("equal" if equal else "differ", SMALL, bold=equal)
        rows.append(row(row(*pills, gap=3), verdict, gap=8))
        said.append(f"{', '.join(order)}: the minima {'are equal' if equal else 'differ'}")
    n_equal = sum(order[0] in shared for order in orders)
    union = set(a) | set(b)
    key = row(
        box(text("first", SMALL, bold=True), "new", corner=9, pad=5),
        box(text("in both", SMALL), "token", corner=9, pad=5),
        box(text("in one", SMALL), "plain", corner=9, pad=5, dashed=True),
        gap=6,
    )
    return Drawing(
        column(*rows, key, gap=6, align="start"),
        f"{n_equal} of {len(orders)} orders have a shared word in front",
        f"Of {len(union)} words, {len(shared)} are in both sets: {', '.join(sorted(shared))}. "
        f"Orders of all words: {'; '.join(said)}.",
    )


def draw_shift(pieces: Sequence[str], ids: Sequence[int]) -> Drawing:
    """A stretch of ids, and its window: inputs are all but the last, targets all but the first."""
    shown = [piece.replace(" ", "␣").replace("\n", "⏎") for piece in pieces]
    width = max(CELL, *(text(piece, SMALL, mono=True).width + 8 for piece in shown))

    def pills(some: Sequence[str], role: str) -> list[Shape]:
        return [
            box(text(piece, SMALL, mono=True), role, width=width, pad=4, corner=10)
            for piece in some
        ]

    numbers = [_wide(text(str(i), SMALL), width) for i in ids]
    in_file = column(row(*pills(shown, "token"), gap=4), row(*numbers, gap=4), gap=2)
    arrows = row(*(_wide(arrow(16, to="down"), width) for _ in ids[:-1]), gap=4)
    pairs = column(
        _line("inputs", row(*pills(shown[:-1], "query"), gap=4)),
        _line("", arrows),
        _line("targets", row(*pills(shown[1:], "new"), gap=4)),
        gap=3,
    )
    said = ", ".join(f"{a!r} → {b!r}" for a, b in pairwise(pieces))
    return Drawing(
        column(named(in_file, f"{len(ids)} ids of the file"), pairs, gap=12),
        f"One window of {len(ids) - 1} inputs and {len(ids) - 1} targets",
        f"The file holds {', '.join(f'{p!r} {i}' for p, i in zip(pieces, ids, strict=True))}. "
        f"Inputs are all but the last, targets all but the first: {said}.",
    )


def draw_packing(packed: Mapping[str, Rows], mask_of: str) -> Drawing:
    """Documents in rows, by some ways to pack them, and who may look at whom in a row of one.

    Each document has a letter; the mask is that of the first row of ``packed[mask_of]``.
    """
    groups, said = [], []
    for name, rows in packed.items():
        drawn = column(*(_letters(some) for some in rows.document), gap=6)
        share = f"{rows.padding_share:.0%} padding, {rows.n_cut} cut"
        groups.append(named(drawn, f"{name}: {share}"))
        as_words = [" ".join(_letter(d) for d in some) for some in rows.document]
        said.append(f"{name}, {share}: {' | '.join(as_words)}")
    first = packed[mask_of].document[0]
    order = np.arange(len(first))
    allowed = (first[:, None] == first) & (order[:, None] >= order) & (first != PADDING)[:, None]
    labels = [_letter(d) for d in first]
    grid = named(
        mask(torch.from_numpy(allowed), labels, labels), f"{mask_of}, first row: who sees whom"
    )
    return Drawing(
        column(*groups, grid, gap=14),
        "Documents in rows of one width",
        f"A letter is a document, · is padding. {'. '.join(said)}. In the first row of {mask_of} "
        "a place sees what comes before it in its own document and nothing of the others.",
    )


def _letter(d: int) -> str:
    return "·" if d == PADDING else LETTERS[d % len(LETTERS)]


def _letters(some: np.ndarray) -> Shape:
    """A row of cells with a letter each, and a thick line where another document begins."""
    cells = [
        box(
            text(_letter(d), SMALL),
            "off" if d == PADDING else "token",
            width=CELL,
            height=CELL,
            pad=2,
            corner=0,
        )
        for d in some
    ]
    joined = row(*cells, gap=0)
    side = joined.width / len(some)
    begins = [side * i for i in range(1, len(some)) if some[i] != some[i - 1]]
    bars = "".join(line([(x, -2), (x, joined.height + 2)], width=3.5) for x in begins)
    return over(joined.width, joined.height, (joined, 0, 0), (Shape(0, 0, bars), 0, 0))


def _dropped(width: float) -> Shape:
    cross = text("×", SMALL)
    return box(cross, "off", width=width, pad=3, dashed=True)


def _line(label: str, shape: Shape) -> Shape:
    return row(_wide(text(label, SMALL), 46), shape, gap=6)


def _wide(shape: Shape, width: float) -> Shape:
    """The shape in the middle of a place that is at least so wide."""
    width = max(width, shape.width)
    return over(width, shape.height, (shape, (width - shape.width) / 2, 0))
