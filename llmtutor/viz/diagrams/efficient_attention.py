"""Drawings, chapter 16: tiles on the square of scores, the reach of windows, a compressed past."""

from collections.abc import Sequence

from llmtutor.checks import check_at_least
from llmtutor.layers.attention.blockwise import check_blocks
from llmtutor.layers.attention.tiles import Tiles
from llmtutor.viz.diagrams.language import number
from llmtutor.viz.diagrams.shapes import (
    SMALL,
    Drawing,
    Shape,
    box,
    column,
    line,
    named,
    over,
    row,
    text,
)

SIDE = 22.0
"""Units of a cell."""


def _cell(label: str, role: str, width: float = SIDE) -> Shape:
    return box(text(label, SMALL), role, width=width, height=SIDE, pad=1, corner=2)


def draw_online(
    scores: Sequence[float], values: Sequence[float], steps: Sequence[Sequence[float]]
) -> Drawing:
    """One line for each score: what came, and (maximum, sum, weighted sum) after it."""
    width = 58.0
    names = ("score", "value", "maximum", "sum", "weighted sum")
    wide = [width, width, width, width, 92.0]
    roles = ("key", "value", "state", "state", "state")
    head = row(*(_cell(n, "plain", w) for n, w in zip(names, wide, strict=True)), gap=2)
    rows = [head]
    for score, value, step in zip(scores, values, steps, strict=True):
        shown = [number(score, 0), number(value, 0), number(step[0], 0)]
        shown += [number(x, 3) for x in step[1:]]
        cells = zip(shown, roles, wide, strict=True)
        rows.append(row(*(_cell(label, role, w) for label, role, w in cells), gap=2))
    last = steps[-1]
    said = "; ".join(
        f"after score {number(s, 0)} the maximum is {number(a, 0)}, the sum {number(b, 3)}, "
        f"the weighted sum {number(c, 3)}"
        for s, (a, b, c) in zip(scores, steps, strict=True)
    )
    return Drawing(
        column(*rows, gap=2),
        f"{len(scores)} scores, read once, one after the other",
        f"{said.capitalize()}. The answer is {number(last[2], 3)} / {number(last[1], 3)}.",
    )


def draw_tiles(tiles: Tiles) -> Drawing:
    """The tiles of a square with the number of each that is visited, in their order."""
    across = -(-tiles.seq_k // tiles.width)
    unit = min(34.0, 250 / across)
    order, rows = 0, []
    for queries in tiles.rows():
        visited = {c.start // tiles.width for c in tiles.columns(queries)}
        cells = []
        for j in range(across):
            order += j in visited
            shown = str(order) if j in visited else ""
            cells.append(_tile(shown, unit, "query" if j in visited else "off"))
        rows.append(row(*cells, gap=2))
    square = column(*rows, gap=2)
    sizes = f"{tiles.seq_q} queries and {tiles.seq_k} keys in tiles of "
    sizes += f"{tiles.height} × {tiles.width}"
    rule = "causal" if tiles.causal else "all"
    if tiles.window is not None:
        rule += f", window {tiles.window}"
    framed = named(named(square, f"keys →, {tiles.width} in a tile"), f"{rule}", below=True)
    return Drawing(
        row(text("queries ↓", SMALL), framed, gap=8),
        f"{order} of {len(tiles.rows()) * across} tiles are visited",
        f"{sizes} ({rule}): row by row, from left to right, {order} tiles are visited; "
        f"{len(tiles.rows()) * across - order} are crossed out and never made.",
    )


def _tile(label: str, unit: float, role: str) -> Shape:
    shape = box(text(label, SMALL), role, width=unit, height=unit, pad=1, corner=2)
    if role != "off" or label:
        return shape
    return over(
        unit, unit, (shape, 0, 0), (Shape(0, 0, line([(4, unit - 4), (unit - 4, 4)])), 0, 0)
    )


def draw_reach(window: int, depth: int, seq: int) -> Drawing:
    """What the last position of ``depth`` layers with a window depends on, layer by layer."""
    check_at_least(1, window=window, depth=depth, seq=seq)
    step, rise, left = 23.0, 40.0, 46.0
    reached = {seq - 1}
    placed, ways, counts = [], [], []
    for level in range(depth, -1, -1):
        y = (depth - level) * rise
        counts.append(len(reached))
        for i in range(seq):
            placed.append((_cell("", "new" if i in reached else "off"), left + i * step, y))
        name = text(f"layer {level}" if level else "input", SMALL)
        placed.append((name, 0.0, y + (SIDE - name.height) / 2))
        count = text(str(len(reached)), SMALL)
        placed.append((count, left + seq * step + 3, y + (SIDE - count.height) / 2))
        if level == 0:
            break
        below = set()
        for i in reached:
            for j in range(max(0, i - window + 1), i + 1):
                xs = [left + n * step + SIDE / 2 for n in (i, j)]
                ways.append(line([(xs[0], y + SIDE), (xs[1], y + rise)]))
                below.add(j)
        reached = below
    width, height = left + seq * step + 20, depth * rise + SIDE
    return Drawing(
        over(width, height, (Shape(0, 0, "".join(ways)), 0, 0), *placed),
        f"{depth} layers with a window of {window} reach {counts[-1]} tokens",
        "From the last position of the top row downwards, "
        + ", then ".join(str(n) for n in counts)
        + " positions are reached, as the numbers at the right say: "
        + f"each layer looks {window - 1} further back.",
    )


def draw_blocks(block: int, compressed: int, window: int, position: int) -> Drawing:
    """What a query at ``position`` sees: rows of the blocks before its own, and its window."""
    check_blocks(block, compressed, window)
    done = position // block
    near = set(range(max(0, position - window + 1), position + 1))
    unit = min(24.0, 336 / (position + 1))
    texts, tops = [], []
    high = 17.0  # of the name of a block
    for i in range(position + 1):
        role = "query" if i == position else "key" if i in near else "off"
        texts.append((_tile(str(i), unit - 2, role), i * unit, high + 58))
    ways = []
    for b in range(done):
        middle = (b * block + block / 2) * unit
        width = compressed * SIDE
        name = text(f"{b * block}–{(b + 1) * block - 1}", SMALL)
        strip = row(*(_cell("", "cache") for _ in range(compressed)), gap=0)
        tops += [(name, middle - name.width / 2, 0.0), (strip, middle - width / 2, high)]
        for end in (b * block * unit, (b + 1) * block * unit - 2):
            ways.append(line([(end, high + 56), (middle, high + SIDE + 2)]))
    total = done * compressed + len(near)
    twice = sorted(near & set(range(done * block)))
    legend = "grey: seen only as part of a block above\norange: in the window; blue: the query"
    if twice:
        legend += "\nseen twice: " + ", ".join(map(str, twice))
    parts = over(
        (position + 1) * unit, high + 58 + unit, (Shape(0, 0, "".join(ways)), 0, 0), *tops, *texts
    )
    return Drawing(
        named(parts, legend, below=True),
        f"Position {position} sees {total} rows instead of {position + 1}",
        f"{done} finished blocks of {block} tokens stand above the text, each as "
        f"{compressed} row{'s' if compressed > 1 else ''}; "
        f"the window holds the last {len(near)} tokens, the query's own included"
        + (f"; seen both ways: {', '.join(map(str, twice))}." if twice else "."),
    )
