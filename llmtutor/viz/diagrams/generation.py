"""Drawings, chapter 21: a model and its second head, from the configuration and a text's tokens."""

from collections.abc import Sequence
from itertools import pairwise

from llmtutor.model.config import ModelConfig
from llmtutor.viz.diagrams.language import named, token, vector
from llmtutor.viz.diagrams.shapes import SMALL, Drawing, Shape, box, line, lines, over, row

WIDTH, GAP, SIDE = 150.0, 18.0, 34.0
"""Of a column, between its pieces, and between the two columns."""
CELLS = 3
"""Drawn for a vector, whatever its width."""


def draw_second_head(config: ModelConfig, words: Sequence[str]) -> Drawing:
    """Three tokens of a text: what each head is given, and which of them it is asked for."""
    now, following, wanted = words
    width, n = config.d_model, config.n_layers
    model = [
        named(token(now), "token t"),
        _part("embedding", "weight"),
        _part(f"{n} blocks", "query"),
        named(vector(CELLS, "vector"), f"h, {width} numbers"),
        _part("norm, output layer", "weight"),
        named(token(following), "token t + 1", below=True),
    ]
    pair = row(vector(CELLS, "vector"), vector(CELLS, "token"), gap=0)
    head = [
        named(token(following), "token t + 1"),
        _part("the same embedding", "off"),
        _part("one norm each", "norm"),
        named(pair, f"h beside e, {2 * width} numbers"),
        _part(f"projection to {width}", "weight"),
        _part("one more block", "query"),
        _part("a norm,\nthe same output layer", "off"),
        named(token(wanted, role="new"), "token t + 2", below=True),
    ]
    left, right = _column(model, 0.0), _column(head, WIDTH + SIDE)
    hidden, norms = left[3], right[2]
    # From the hidden state's side to the norms of the second head.
    start = (WIDTH / 2 + CELLS * 11 + 2, hidden[2] + hidden[0].height - 11)
    turn, end = WIDTH + SIDE / 2, norms[2] + norms[0].height / 2
    way = line([start, (turn, start[1]), (turn, end), (WIDTH + SIDE, end)], head=True)
    height = max(y + shape.height for shape, _, y in (*left, *right))
    picture = over(
        2 * WIDTH + SIDE,
        height,
        (Shape(0, 0, way + _ways(left) + _ways(right)), 0, 0),
        *left,
        *right,
    )
    return Drawing(
        picture,
        "A second head beside the model",
        f"Left, the model: token t, {now!r}, goes through the embedding and {n} blocks and becomes "
        f"a hidden state h of {width} numbers; norm and output layer are asked for token t + 1, "
        f"{following!r}. Right, the second head: h and the embedding e of token t + 1, each "
        f"through a norm of its own, stand beside each other, {2 * width} numbers. A projection "
        f"brings them back to {width}, one more block mixes positions, and a norm and the same "
        f"output layer are asked for token t + 2: {wanted!r}.",
    )


def _part(words: str, role: str) -> Shape:
    return box(lines(words, SMALL), role, width=WIDTH)


Placed = tuple[Shape, float, float]


def _column(pieces: Sequence[Shape], left: float) -> list[Placed]:
    """One below the other, each in the middle."""
    placed, y = [], 0.0
    for piece in pieces:
        placed.append((piece, left + (WIDTH - piece.width) / 2, y))
        y += piece.height + GAP
    return placed


def _ways(placed: Sequence[Placed]) -> str:
    """An arrow from each piece to the one below it."""
    ways = []
    for (upper, x, y), (_, _, below) in pairwise(placed):
        middle = x + upper.width / 2
        ways.append(line([(middle, y + upper.height + 2), (middle, below - 2)], head=True))
    return "".join(ways)
