"""Drawings, chapter 01: a word that grows out of its bytes, the way to ids, rows of pieces.

A pill is a token. One that holds a part of a character only cannot be read: it is plain, and shows
its bytes as hexadecimal numbers.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from llmtutor.tokenizer.bpe import BPETokenizer
from llmtutor.tokenizer.pieces import SIGNS
from llmtutor.tokenizer.pretokenize import split
from llmtutor.viz.diagrams.language import token
from llmtutor.viz.diagrams.shapes import (
    SMALL,
    WIDEST,
    Drawing,
    Shape,
    arrow,
    box,
    column,
    line,
    lines,
    named,
    over,
    row,
    text,
    text_width,
)

Merge = tuple[bytes, bytes]
GAP = 4.0
STOREY = 36.0
"""From the bytes of a tree to its first merge, and from one merge to the next."""


def readable(piece: bytes) -> str:
    """The text of a token, or its bytes where it is no text.

    >>> readable("é".encode()), readable(b"\\xf0\\x9f")
    ('é', 'F0·9F')
    """
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return piece.hex(" ").upper().replace(" ", "·")


def pill(piece: bytes, id: int | None = None, role: str = "token") -> Shape:
    """A token of these bytes."""
    words = readable(piece)
    return token(words, id, role if words.encode("utf-8") == piece else "plain")


def by_rank(word: bytes, ranks: Mapping[Merge, int]) -> list[Merge]:
    """The merges that make the tokens of a word, in the order in which they are made.

    >>> by_rank(b"bubble", {(b"u", b"b"): 0, (b"l", b"e"): 1})
    [(b'u', b'b'), (b'l', b'e')]
    """
    symbols, made = [bytes([byte]) for byte in word], list[Merge]()
    while True:
        known = [pair for pair in pairwise(symbols) if pair in ranks]
        if not known:
            return made
        best = min(known, key=ranks.__getitem__)
        at = list(pairwise(symbols)).index(best)
        symbols[at : at + 2] = [best[0] + best[1]]
        made.append(best)


def draw_merge_tree(word: bytes, made: Sequence[Merge], ranks: Mapping[Merge, int]) -> Drawing:
    """How a word grows out of its bytes, one merge a row; ``made`` are its merges, in order.

    A merge that occurs twice in the word joins the first place. What nothing joins any further
    stands out: these are the tokens.
    """
    shape, tokens = merge_tree(word, made, ranks)
    numbers = {pair: ranks[pair] + 1 for pair in made}
    said = "; ".join(
        f"merge {numbers[a, b]:,} makes {_quoted(a + b)} of {_quoted(a)} and {_quoted(b)}"
        for a, b in made
    )
    ends = " ".join(map(_quoted, tokens))
    return Drawing(
        shape,
        f"How {_quoted(word)} grows out of its bytes",
        f"Above, the {len(word)} bytes. Each row below is one merge: {said}. "
        f"No further merge fits: the tokens are {ends}.",
    )


def merge_tree(
    word: bytes, made: Sequence[Merge], ranks: Mapping[Merge, int]
) -> tuple[Shape, list[bytes]]:
    """The tree of ``draw_merge_tree``, and the tokens at its ends."""
    leaves = [bytes([byte]) for byte in word]
    step = max(28.0, *(pill(leaf).width + GAP for leaf in leaves))
    nodes = [(leaf, (i + 0.5) * step, 0) for i, leaf in enumerate(leaves)]
    standing, ways = list(range(len(nodes))), []
    for number, (left, right) in enumerate(made, start=1):
        pairs = [(nodes[a][0], nodes[b][0]) for a, b in pairwise(standing)]
        at = pairs.index((left, right))
        parts = [nodes[i] for i in standing[at : at + 2]]
        middle = sum(x for _, x, _ in parts) / 2
        nodes.append((left + right, middle, number))
        ways += [((x, level), (middle, number)) for _, x, level in parts]
        standing[at : at + 2] = [len(nodes) - 1]
    height = pill(b"a").height
    drawn = [line([(x0, y0 * STOREY + height), (x1, y1 * STOREY)]) for (x0, y0), (x1, y1) in ways]
    placed = [(Shape(0, 0, "".join(drawn)), 0.0, 0.0)]
    for i, (piece, x, level) in enumerate(nodes):
        shape = pill(piece, role="new" if i in standing else "token")
        placed.append((shape, x - shape.width / 2, level * STOREY))
    rows = [text(f"merge {ranks[pair] + 1:,}", SMALL) for pair in made]
    margin = max((words.width for words in rows), default=0.0) + 8
    labels = [
        (words, 0.0, (i + 1) * STOREY + (height - words.height) / 2) for i, words in enumerate(rows)
    ]
    tree = over(len(leaves) * step, len(made) * STOREY + height, *placed)
    whole = over(margin + tree.width, tree.height, (tree, margin, 0.0), *labels)
    return whole, [nodes[i][0] for i in standing]


def draw_two_orders(
    word: bytes,
    ranks: Mapping[Merge, int],
    orders: Mapping[str, Sequence[Merge]],
) -> Drawing:
    """The trees of one word by several orders of merges, below each other."""
    trees = {name: merge_tree(word, made, ranks) for name, made in orders.items()}
    shapes = [named(shape, name) for name, (shape, _) in trees.items()]
    said = "; ".join(
        f"{name}: " + " ".join(map(_quoted, tokens)) for name, (_, tokens) in trees.items()
    )
    return Drawing(
        column(*shapes, gap=18, align="start"),
        f"{_quoted(word)}, merged in {len(orders)} orders",
        f"The same bytes and the same merges lead to other tokens in another order. {said}.",
    )


def draw_way(words: str, tokenizer: BPETokenizer) -> Drawing:
    """A text on its way: the pieces of the pattern, their bytes, their tokens, the ids."""
    pieces = split(words, tokenizer.pattern)
    found = {piece: tokenizer.encode(piece, allow_special=False) for piece in pieces}
    rows = [
        [box(text(_visible(piece), mono=True), "plain") for piece in pieces],
        [_bytes(piece.encode("utf-8")) for piece in pieces],
        [row(*(pill(tokenizer.token_bytes(id), id) for id in found[p]), gap=2) for p in pieces],
    ]
    widths = [max(shapes[i].width for shapes in rows) for i in range(len(pieces))]
    levels = [
        row(*(_centred(shape, width) for shape, width in zip(shapes, widths, strict=True)), gap=8)
        for shapes in rows
    ]
    steps = ["the pattern cuts", "UTF-8", "merges; the id of each token"]
    parts: list[Shape] = [box(text(_visible(words), mono=True), "plain", corner=2)]
    for step, level in zip(steps, levels, strict=True):
        parts += [arrow(18, to="down", label=step), level]
    said = "; ".join(
        f"{_quoted(piece.encode('utf-8'))} has the bytes {piece.encode('utf-8').hex(' ').upper()} "
        f"and the tokens {' '.join(_quoted(tokenizer.token_bytes(id)) for id in ids)} "
        f"with the ids {' '.join(f'{id:,}' for id in ids)}"
        for piece, ids in found.items()
    )
    return Drawing(
        column(*parts, gap=5),
        "From text to ids",
        f"From top to bottom: the text {_quoted(words.encode('utf-8'))} is cut into "
        f"{len(pieces)} pieces. {said}.",
    )


def draw_pieces(rows: Mapping[str, Sequence[bytes]], title: str) -> Drawing:
    """The tokens of one text, a row for each tokenizer (or size), with their number and its name.

    Neighbours that cut the text alike share a row.
    """
    shared: list[tuple[list[str], Sequence[bytes]]] = []
    for name, pieces in rows.items():
        if shared and list(shared[-1][1]) == list(pieces):
            shared[-1][0].append(name)
        else:
            shared.append(([name], pieces))
    names = [lines(",\n".join(some), SMALL) for some, _ in shared]
    counts = [text(f"{len(pieces)}", SMALL, bold=True) for _, pieces in shared]
    left = max(shape.width for shape in names)
    right = max(shape.width for shape in counts)
    room = WIDEST - left - right - 16
    drawn = []
    for label, count, (_, pieces) in zip(names, counts, shared, strict=True):
        pills = _wrapped([pill(piece) for piece in pieces], room)
        drawn.append(row(_ended(label, left), _ended(count, right), pills))
    said = "; ".join(
        f"{' and '.join(some)}, {len(pieces)}: {' '.join(map(_quoted, pieces))}"
        for some, pieces in shared
    )
    return Drawing(column(*drawn, gap=9, align="start"), title, f"Tokens by row. {said}.")


def _wrapped(pills: Sequence[Shape], room: float) -> Shape:
    """Pills in as many lines as they need."""
    shelves: list[list[Shape]] = [[]]
    for shape in pills:
        width = sum(other.width + GAP for other in shelves[-1]) + shape.width
        if shelves[-1] and width > room:
            shelves.append([])
        shelves[-1].append(shape)
    return column(*(row(*some, gap=GAP) for some in shelves), gap=3, align="start")


def _bytes(data: bytes) -> Shape:
    """A strip of bytes as hexadecimal numbers, the smallest that can be read."""
    size = SMALL - 1
    width = text_width("00", size) + 2
    cells = []
    for byte in data:
        words = text(f"{byte:02X}", size)
        frame = f'<rect class="lt-vector" width="{width:.4g}" height="18"/>'
        cells.append(Shape(width, 18, frame + words.at((width - words.width) / 2, 2.5)))
    return row(*cells, gap=0)


def _visible(words: str) -> str:
    return words.translate(SIGNS)


def _quoted(piece: bytes) -> str:
    return f"“{_visible(readable(piece))}”"


def _centred(shape: Shape, width: float) -> Shape:
    return over(width, shape.height, (shape, (width - shape.width) / 2, 0))


def _ended(shape: Shape, width: float) -> Shape:
    return over(width, shape.height, (shape, width - shape.width, 0))
