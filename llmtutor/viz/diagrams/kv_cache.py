"""Drawings, chapter 14: the cache as it grows, heads that share it, pages that requests share.

Each is made from tensors or tables, and its description says what stands in it.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate

from torch import Tensor

from llmtutor.viz.diagrams.language import CELL, head_sharing, named, number
from llmtutor.viz.diagrams.shapes import (
    SMALL,
    Drawing,
    Shape,
    box,
    column,
    line,
    over,
    row,
    space,
    text,
)

Words = Sequence[str]
REACH = 46.0
"""Between a page table and the pages that it points to."""


def draw_growing(words: Words, keys: Tensor, values: Tensor, pieces: Sequence[int]) -> Drawing:
    """A cache after each piece of a text: keys and values (heads, tokens, width), in numbers.

    ``pieces`` says how many tokens arrive together; the new ones stand out.

    Raises:
        ValueError: pieces that are not the whole text.
    """
    if sum(pieces) != len(words):
        raise ValueError(f"pieces must sum to the {len(words)} tokens, got {list(pieces)}")
    rows = [
        (f"{name} {head}", name, [_numbers(vector) for vector in kept[head]])
        for head in range(len(keys))
        for name, kept in (("key", keys), ("value", values))
    ]
    entries = (entry for _, _, some in rows for entry in some)
    width = max(text(label, SMALL).width for label in (*words, *entries)) + 8
    drawers, said = [], []
    for step, (new, end) in enumerate(zip(pieces, accumulate(pieces), strict=True), 1):
        arrived = words[end - new : end]
        title = f"{step}. {' '.join(arrived)}{', at once' if new > 1 else ''}"
        drawers.append(named(_drawer(words, rows, width, end - new, end), title))
        said.append(f"After {' '.join(arrived)!r} it holds {end} tokens, {new} of them new")
    return Drawing(
        column(*drawers, gap=12),
        "The cache as the text grows",
        f"Slots for {len(words)} tokens; in each a key and a value of {len(keys)} heads. "
        f"{'. '.join(said)}. The newest token, {words[-1]!r}, leaves "
        + ", ".join(f"{label} {some[-1]}" for label, _, some in rows)
        + ".",
    )


def _drawer(
    words: Words, rows: Sequence[tuple[str, str, list[str]]], width: float, old: int, end: int
) -> Shape:
    """The cache with ``end`` tokens, the first ``old`` of which were there before."""
    left = max(text(label, SMALL).width for label, _, _ in rows)
    slots = []
    for i, word in enumerate(words):
        cells = []
        for _, role, some in rows:
            look = ("new" if i >= old else role) if i < end else "plain"
            cells.append(_cell(some[i] if i < end else "", width, look))
        filled = column(*cells, gap=0)
        slots.append(named(filled, word) if i < end else column(_label(" "), filled, gap=3))
    names = column(*(_right(label, left) for label, _, _ in rows), gap=0)
    return row(column(_label(" "), names, gap=3), box(row(*slots, gap=3), dashed=True, pad=5))


def draw_head_sharing(n_heads: int, kv_heads: Mapping[str, int], head_dim: int) -> Drawing:
    """Query heads on fewer and fewer KV heads, which are what the cache keeps."""
    pictures, said = [], []
    for name, n_kv_heads in kv_heads.items():
        kept = 2 * n_kv_heads * head_dim
        heads = "1 KV head" if n_kv_heads == 1 else f"{n_kv_heads} KV heads"
        label = f"{name}: {heads}, {kept} numbers a token"
        pictures.append(named(head_sharing(n_heads, n_kv_heads), label))
        said.append(f"{label}, each head read by {n_heads // n_kv_heads}")
    return Drawing(
        column(*pictures, gap=18),
        "Which query head reads which keys and values",
        f"{n_heads} query heads above, pairs of a key and a value below, in the dashed drawer of "
        f"the cache; a key is {head_dim} numbers wide, and so is a value. {'; '.join(said)}.",
    )


def draw_pages(
    texts: Mapping[str, Words], tables: Mapping[str, Sequence[int]], n_pages: int, page: int
) -> Drawing:
    """Pages of ``page`` tokens, and two requests whose tables say where their tokens are.

    Raises:
        ValueError: other than two requests; a page that two of them fill with other tokens.
    """
    if len(texts) != 2:
        raise ValueError(f"two requests can be drawn, got {len(texts)}")
    memory: dict[int, Words] = {}
    uses = [0] * n_pages
    for name, words in texts.items():
        for i, place in enumerate(tables[name]):
            some = tuple(words[i * page : (i + 1) * page])
            if memory.setdefault(place, some) != some:
                raise ValueError(f"page {place} holds {memory[place]}, and {name} says {some}")
            uses[place] += 1
    looks = {0: "plain", 1: "cache", 2: "new"}
    inside = [" ".join(memory.get(place, ())) for place in range(n_pages)]
    wide = max(text(some, SMALL).width for some in inside) + 16
    stack = [
        row(_label(str(i)), box(text(some or " ", SMALL), looks[n], width=wide), gap=5)
        for i, (some, n) in enumerate(zip(inside, uses, strict=True))
    ]
    said = [
        f"page {i} holds {some!r}{' for both' * (n > 1)}" if some else f"page {i} is free"
        for i, (some, n) in enumerate(zip(inside, uses, strict=True))
    ]
    return Drawing(
        _around(stack, tables),
        "Two requests, their page tables and the memory",
        "; ".join(f"The table of {name} is {list(table)}" for name, table in tables.items())
        + f". In memory, {'; '.join(said)}.",
    )


def _around(stack: Sequence[Shape], tables: Mapping[str, Sequence[int]]) -> Shape:
    """Pages in the middle, a table at each side, an arrow from each entry to its page."""
    memory = named(column(*stack, gap=4, align="end"), "memory, in pages")
    sides = [
        named(column(*(_cell(str(p), CELL, "token") for p in table), gap=0), name)
        for name, table in tables.items()
    ]
    width = max(page.width for page in stack)
    left = sides[0].width + REACH + (memory.width - width) / 2
    right = left + width + REACH
    ends = (sides[0].width, left - 3), (right, left + width + 3)
    top, height = memory.height - len(stack) * (stack[0].height + 4) + 4, stack[0].height + 4
    ways = []
    for table, (start, end) in zip(tables.values(), ends, strict=True):
        for i, page in enumerate(table):
            points = [(start, top + (i + 0.5) * CELL), (end, top + page * height + height / 2 - 2)]
            ways.append(line(points, head=True))
    return over(
        right + sides[1].width,
        max(shape.height for shape in (memory, *sides)),
        (Shape(0, 0, "".join(ways)), 0, 0),
        (memory, left + (width - memory.width) / 2, 0),
        (sides[0], 0, 0),
        (sides[1], right, 0),
    )


def _cell(words: str, width: float, role: str) -> Shape:
    """A box of one line, as high as every other cell."""
    inside = text(words, SMALL) if words else space()
    return box(inside, role, width=width, height=CELL, corner=0, pad=0)


def _label(words: str) -> Shape:
    return text(words, SMALL)


def _right(words: str, width: float) -> Shape:
    """A label that ends at the right, as high as a cell."""
    label = _label(words)
    return over(width, CELL, (label, width - label.width, (CELL - label.height) / 2))


def _numbers(vector: Tensor) -> str:
    return " ".join(number(float(value), 0) for value in vector)
