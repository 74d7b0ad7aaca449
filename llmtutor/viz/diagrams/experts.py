"""Drawings, chapter 18: tokens on their way to experts, in one process and between two.

Each is made from the choices of a router, and its description says who goes where.
"""

from collections.abc import Sequence

from torch import Tensor

from llmtutor.viz.diagrams.language import expert, number, token
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

WIDTH, TOP, BOTTOM = 344.0, 30.0, 150.0
"""Of a drawing; where the tokens stand, and their experts."""
THIN, THICK = 0.7, 4.0
"""Lines to an expert that counts for nothing, and for everything."""
Placed = tuple[Shape, float, float]


def draw_routing(words: Sequence[str], chosen: Tensor, weights: Tensor, n_experts: int) -> Drawing:
    """Each token above, a line to each of its experts below, the wider the more it counts.

    ``chosen`` and ``weights`` are (tokens, top_k); a choice of ``n_experts`` is that of nobody. The
    weights of the first token stand at its lines; a token of nobody is dashed, and dropped.
    """
    dropped = (chosen == n_experts).all(1).tolist()
    tokens = [
        _dropped(word) if out else token(word) for word, out in zip(words, dropped, strict=True)
    ]
    experts = [expert(f"expert {i}") for i in range(n_experts)]
    xs, ys = _spread(tokens), _spread(experts)
    ways, said = [], []
    labels: list[Placed] = []
    for i, word in enumerate(words):
        to = []
        for e, weight in zip(chosen[i].tolist(), weights[i].tolist(), strict=True):
            if e == n_experts:
                to.append("nobody")
                continue
            ends = [(xs[i], TOP), (ys[e], BOTTOM)]
            ways.append(line(ends, head=True, width=THIN + (THICK - THIN) * weight))
            to.append(f"expert {e} ({number(weight, 2)})")
            if i == 0:
                labels.append(_beside(ends, number(weight, 2), len(labels)))
        if dropped[i]:
            ways.append(line([(xs[i], TOP), (xs[i], TOP + 16)], "off"))
            words_below = text("dropped", SMALL)
            labels.append((words_below, xs[i] - words_below.width / 2, TOP + 17))
        said.append(f"{word} to {' and '.join(to)}")
    counts = [int((chosen == e).sum()) for e in range(n_experts)]
    placed = [(Shape(0, 0, "".join(ways)), 0.0, 0.0), *labels]
    placed += [(t, x - t.width / 2, TOP - t.height) for t, x in zip(tokens, xs, strict=True)]
    for e, (shape, x) in enumerate(zip(experts, ys, strict=True)):
        below = named(shape, f"{counts[e]} tokens" if counts[e] != 1 else "1 token", below=True)
        placed.append((below, x - below.width / 2, BOTTOM + 2))
    height = BOTTOM + 4 + max(s.height for s, *_ in placed[-n_experts:])
    return Drawing(
        over(WIDTH, height, *placed),
        f"{len(words)} tokens and {n_experts} experts",
        f"{'; '.join(said)}. Tokens of the experts: {', '.join(map(str, counts))}.",
    )


def _dropped(word: str) -> Shape:
    return box(text(word, mono=True), "off", corner=12, dashed=True)


def _beside(ends: Sequence[tuple[float, float]], label: str, place: int) -> Placed:
    """A label left of a line and a little below, further down for the second line and the third."""
    (x0, y0), (x1, y1) = ends
    words, share = text(label, SMALL), 1 / 3 + place / 6
    x, y = x0 + share * (x1 - x0), y0 + share * (y1 - y0)
    return words, x - words.width - 5, y - words.height / 2 + 4


def draw_exchange(words: Sequence[Sequence[str]], chosen: Sequence[Sequence[int]]) -> Drawing:
    """Two processes: the tokens that each reads, and the tokens that its experts get.

    ``words`` and ``chosen`` are by process; experts are shared out in order, two to each.
    """
    homes = [
        [(word, rank) for rank in (0, 1) for word, e in zip(words[rank], chosen[rank], strict=True)
         if e == i]
        for i in range(4)
    ]  # fmt: skip
    upper = [
        named(box(row(*(token(word) for word in words[rank]), gap=4), "rank"), f"rank {rank} reads")
        for rank in (0, 1)
    ]
    lower = []
    for rank in (0, 1):
        held = []
        for i in (2 * rank, 2 * rank + 1):
            guests = [
                token(word, role="token" if home == rank else "new") for word, home in homes[i]
            ]
            held.append(column(expert(f"E{i}"), *(guests or [text("nobody", SMALL)]), gap=4))
        inside = box(row(*held, gap=8, align="start"), "rank")
        lower.append(named(inside, f"rank {rank} holds", below=True))
    left, right = (max(a.width, b.width) for a, b in zip(upper, lower, strict=True))
    gap, y = 20.0, max(shape.height for shape in upper)
    middle = (left / 2, left + gap + right / 2)
    ways = "".join(
        line([(middle[a], y), (middle[b], y + 56)], "query" if a != b else "plain", head=True)
        for a in (0, 1)
        for b in (0, 1)
    )
    placed = [(Shape(0, 0, ways), 0.0, 0.0)]
    placed += [(s, m - s.width / 2, 0.0) for s, m in zip(upper, middle, strict=True)]
    placed += [(s, m - s.width / 2, y + 60) for s, m in zip(lower, middle, strict=True)]
    travelling = sum(e // 2 != rank for rank in (0, 1) for e in chosen[rank])
    said = "; ".join(
        f"expert {i} on rank {i // 2} gets "
        + (", ".join(f"{word} from rank {home}" for word, home in homes[i]) or "nobody")
        for i in range(4)
    )
    return Drawing(
        over(left + gap + right, y + 60 + max(s.height for s in lower), *placed),
        "Two processes exchange tokens",
        f"{said}. {travelling} of {sum(map(len, words))} tokens travel, and their results back.",
    )


def _spread(shapes: Sequence[Shape]) -> list[float]:
    """Middles of shapes that share the width."""
    whole = sum(shape.width for shape in shapes)
    gap = (WIDTH - whole) / len(shapes)
    xs, x = [], gap / 2
    for shape in shapes:
        xs.append(x + shape.width / 2)
        x += shape.width + gap
    return xs
