"""Drawings, chapter 23: a model's file from top to bottom, and who shares a scale."""

from collections.abc import Sequence

from llmtutor.viz.diagrams.language import CELL, matrix, named
from llmtutor.viz.diagrams.shapes import SMALL, Drawing, Shape, box, column, lines, row, space, text

WIDE, NARROW = 220.0, 92.0
"""Units of a part of a file, and of its size beside it."""


def draw_file(name: str, parts: Sequence[tuple[str, str, int]]) -> Drawing:
    """A file as it lies on a disk: each part with what is in it and how many bytes it takes.

    Raises:
        ValueError: no parts.
    """
    if not parts:
        raise ValueError("a file needs at least one part")
    total = sum(size for _, _, size in parts)
    stack = []
    for i, (what, content, size) in enumerate(parts):
        inside = column(text(what, bold=True), lines(content, SMALL), gap=2)
        # The data is nearly all of a file: taller, though not to scale.
        part = box(inside, "weight" if i == len(parts) - 1 else "plain", width=WIDE, corner=0)
        share = f"{size:,} bytes" if size < 0.01 * total else f"{size:,} bytes\n{size / total:.1%}"
        size_text = lines(share, SMALL)
        beside = row(part, space(6), size_text, space(max(0.0, NARROW - size_text.width)), gap=0)
        stack.append(beside)
    said = "; ".join(f"{what}: {content}, {size:,} bytes" for what, content, size in parts)
    return Drawing(
        column(*stack, gap=0, align="start"),
        f"What is in {name}",
        f"From the first byte to the last. {said.replace(chr(10), ' ')}. {total:,} bytes in all.",
    )


def draw_sharing(rows: int = 3, columns: int = 8, group: int = 4) -> Drawing:
    """A matrix three times: one scale for all of it, one for each row, one for each group."""
    pictures = []
    for label, per_row in (("one", 0), ("rows", 1), ("groups", columns // group)):
        grid = matrix((rows, columns), "weight")
        if per_row == 0:
            scales: Shape = matrix((1, 1), "norm")
            said = "one scale for the matrix"
        else:
            scales = matrix((rows, per_row), "norm")
            said = "one for each row" if label == "rows" else f"one for each {group} of a row"
        pictures.append(named(row(grid, space(8), scales, gap=0), said))
    counts = [1, rows, rows * columns // group]
    return Drawing(
        column(*pictures, gap=14, align="start"),
        "Who shares a scale",
        f"A matrix of {rows} rows and {columns} columns, three times, with its scales to its "
        f"right. One scale for the whole matrix: {counts[0]}. One for each row: {counts[1]}. One "
        f"for each group of {group} entries that stand side by side in a row: {counts[2]}.",
    )


def draw_bytes(codes: Sequence[int]) -> Drawing:
    """Codes of four bits, two of them in each byte, as they are stored."""
    pieces = []
    for i in range(0, len(codes), 2):
        pair = codes[i : i + 2]
        high = pair[1] if len(pair) > 1 else 0
        cells = row(
            box(text(f"{high:04b}", SMALL, mono=True), "query", pad=5, height=CELL),
            box(text(f"{pair[0]:04b}", SMALL, mono=True), "key", pad=5, height=CELL),
            gap=0,
        )
        inner = named(box(cells, "plain", pad=3), f"{pair[0]} + 16 · {high}")
        pieces.append(named(inner, str(pair[0] + 16 * high), below=True))
    numbers = [
        codes[i] + 16 * (codes[i + 1] if i + 1 < len(codes) else 0) for i in range(0, len(codes), 2)
    ]
    shown, stored = (", ".join(map(str, some)) for some in (codes, numbers))
    return Drawing(
        column(
            *(row(*pieces[i : i + 2], gap=14) for i in range(0, len(pieces), 2)),
            gap=10,
        ),
        "Two codes in a byte",
        f"The codes {shown} of four bits each. The first of a pair is the lower half of its byte, "
        f"at the right. As numbers the bytes are {stored}.",
    )
