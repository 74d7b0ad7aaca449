"""Drawings, chapter 04: a sentence on its way through attention, each made from its tensors.

The description of a drawing says the numbers that stand in it, so neither can be wrong alone.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from llmtutor.layers.attention import causal_mask
from llmtutor.viz.diagrams.language import CELL, mask, matrix, named, number, token, vector
from llmtutor.viz.diagrams.shapes import (
    SMALL,
    Drawing,
    Shape,
    arrow,
    box,
    column,
    line,
    over,
    row,
    space,
    text,
)

Words = Sequence[str]
Q_K_V = ("query", "key", "value")


def draw_sentence(words: Words, vectors: Tensor, features: Words) -> Drawing:
    """Each word above its vector, (seq, width), with the names of the components at the left."""
    pills = [token(word) for word in words]
    strips = [
        column(pill, vector(x, digits=0, upright=True), gap=4)
        for pill, x in zip(pills, vectors, strict=True)
    ]
    names = column(space(height=pills[0].height), *(_line(f) for f in features), gap=0, align="end")
    said = "; ".join(f"{w} {_said(x, 0)}" for w, x in zip(words, vectors, strict=True))
    return Drawing(
        row(column(space(height=4), names, gap=0), *strips, gap=4, align="start"),
        f"{len(words)} words, a vector for each",
        f"Below each word stand its components, {', '.join(features)}: {said}.",
    )


def draw_projections(
    word: str,
    x: Tensor,
    projections: Mapping[str, Tensor],
    components: Words,
    outputs: Mapping[str, Words],
) -> Drawing:
    """One vector (d_model,) times three matrices (d_out, d_model), named query, key and value.

    ``components`` are the names of the columns, ``outputs`` those of the rows of each matrix.
    """
    results = {role: x @ projections[role].T for role in Q_K_V}
    ways = []
    for role in Q_K_V:
        weights = matrix(projections[role], digits=0, rows=outputs[role], columns=components)
        beside = row(arrow(16), vector(results[role], role, upright=True, digits=0), gap=4)
        level = column(beside, space(height=2), gap=0)  # on the frame
        ways.append(row(named(weights, f"W of the {role}"), level, gap=4, align="end"))
    start = named(vector(x, upright=True, digits=0), f"x of {word}")
    wide, fan, gap = max(way.width for way in ways), 40, 14
    height = sum(way.height for way in ways) + gap * (len(ways) - 1)
    placed, arrows, top = [], [], 0.0
    for way in ways:
        left = start.width + fan + wide - way.width
        placed.append((way, left, top))
        ends = [(start.width + 2, height / 2), (left - 4, top + way.height - 2 * CELL)]
        arrows.append(line(ends, head=True))
        top += way.height + gap
    said = ", ".join(f"the {role} {_said(results[role], 0)}" for role in Q_K_V)
    return Drawing(
        over(
            start.width + fan + wide,
            height,
            (Shape(0, 0, "".join(arrows)), 0, 0),
            (start, 0, (height - start.height) / 2),
            *placed,
        ),
        f"Three vectors from the one of {word}",
        f"The vector {_said(x, 0)} of {word} ({', '.join(components)}) goes through three matrices "
        f"and gives {said}.",
    )


def draw_query(
    words: Words, scores: Tensor, weights: Tensor, values: Tensor, components: Words
) -> Drawing:
    """What one query does: scores (k,), weights (k,), values (k, v_dim), and their mean below."""
    answer = weights @ values
    table = row(
        named(matrix(scores[:, None], "query", rows=words), "scores"),
        column(arrow(14, label="softmax"), space(height=len(words) * CELL / 2 - 6), gap=0),
        named(matrix(weights[:, None], "query", digits=2), "weights"),
        _beside("×", words),
        named(matrix(values, "value", digits=0, columns=components), "values"),
        align="end",
    )
    below = matrix(answer[None], "new", digits=2, rows=("weighted mean",), columns=components)
    return Drawing(
        column(table, column(arrow(14, to="down"), below, gap=4), gap=4, align="end"),
        f"What {words[-1]} receives",
        f"The scores of {', '.join(words)} are {_said(scores, 1)}; the softmax makes of them the "
        f"weights {_said(weights, 2)}. The values ({', '.join(components)}), weighted so, add up "
        f"to {_said(answer, 2)}.",
    )


def draw_scores(words: Words, scores: Tensor, weights: Tensor, allowed: Tensor) -> Drawing:
    """Scores and weights of all queries, (q, k) each; what may not be seen is crossed out."""
    above = matrix(scores, "query", rows=words, columns=words, shown=allowed)
    below = matrix(weights, "query", digits=2, rows=words, columns=words, shown=allowed)
    said = "; ".join(
        f"{word} {_said(w[seen], 2)}" for word, w, seen in zip(words, weights, allowed, strict=True)
    )
    return Drawing(
        column(
            named(above, "scaled scores: a row for each query, a column for each key"),
            arrow(14, to="down", label="softmax of each row"),
            named(below, "weights"),
        ),
        "All queries at once, with the mask",
        "The future is crossed out: it has no number, neither as a score nor as a weight. The "
        f"weights that remain, row by row: {said}.",
    )


def draw_masks(texts: Sequence[Words], masks: Tensor) -> Drawing:
    """The masks of a batch beside each other, (batch, q, k) of bool, with the words of each."""
    grids = [mask(seen, words, words) for words, seen in zip(texts, masks, strict=True)]
    said = "; ".join(
        f"“{' '.join(words)}” {int(seen.sum())} of {seen.numel()} pairs"
        for words, seen in zip(texts, masks, strict=True)
    )
    return Drawing(
        row(*grids, gap=10),
        f"The masks of {len(texts)} texts in one batch",
        "A row for each query, a column for each key; what may not be seen is crossed out. "
        f"Allowed are, of {said}.",
    )


def draw_heads(word: str, parts: Mapping[str, Tensor], results: Tensor) -> Drawing:
    """Query, key and value of one position cut into heads, (heads, head_dim) each, and back."""
    whole = [named(vector(parts[r].flatten(), r, digits=0), r) for r in Q_K_V]
    heads = []
    for n in range(len(results)):
        cut = row(*(vector(parts[role][n], role, digits=0) for role in Q_K_V), gap=5)
        mean = vector(results[n], "new", digits=2)
        heads.append(column(named(box(cut, corner=9), f"head {n}"), arrow(14, to="down"), mean))
    merged = named(vector(results.flatten(), "new", digits=2), "side by side", below=True)
    said = "; ".join(f"head {n} {_said(result, 2)}" for n, result in enumerate(results))
    return Drawing(
        column(
            row(*whole, gap=10),
            arrow(14, to="down", label="cut"),
            row(*heads, gap=10),
            arrow(14, to="down", label="merge"),
            merged,
            gap=4,
        ),
        f"The heads of {word}",
        f"Query, key and value of {word} are cut into {len(results)} heads. With the keys and "
        f"values of the other words, cut in the same way, they give: {said}. Laid side by side, "
        "these are one vector again.",
    )


def draw_self_and_cross(here: Words, there: Words, weights: Tensor) -> Drawing:
    """Self-attention beside cross-attention, and the weights of ``here`` on ``there``, (q, k)."""
    own = column(
        _attends({"one text": Q_K_V}, "causal mask"),
        mask(causal_mask(len(there))),
        gap=4,
    )
    other = column(
        _attends({"text 1": Q_K_V[:1], "text 2": Q_K_V[1:]}, "no mask"),
        mask(causal_mask(len(there))[-1:].expand(len(here), -1)),
        gap=4,
    )
    pairs = zip(here, weights, strict=True)
    said = ", ".join(f"{w} most to {there[int(row_.argmax())]}" for w, row_ in pairs)
    return Drawing(
        column(
            row(
                named(own, "self-attention"), named(other, "cross-attention"), gap=30, align="start"
            ),
            named(
                matrix(weights, "query", digits=2, rows=here, columns=there),
                "weights of the example",
            ),
            gap=16,
        ),
        "Self-attention and cross-attention",
        "Left, queries, keys and values come from one text, under a causal mask. Right, the "
        "queries come from text 1, the keys and values from text 2, and nothing is masked. Below, "
        f"the weights of the example: {said}.",
    )


def draw_decoding(words: Words) -> Drawing:
    """The keys that are computed at each step of writing a text, if none is kept."""
    names = [text(f"{step}. {word}", SMALL) for step, word in enumerate(words, 1)]
    wide = max(name.width for name in names)
    steps = []
    for done, name in enumerate(names):
        again = [vector(done, "cache")] if done else []
        cells = row(*again, vector(1, "new"), gap=0)
        steps.append(
            over(wide + 8 + cells.width, CELL, (name, wide - name.width, 4), (cells, wide + 8, 0))
        )
    n = len(words)
    legend = row(
        *(vector(1, "new"), text("new", SMALL)),
        *(space(10), vector(1, "cache"), text("the same as a step before", SMALL)),
        gap=5,
    )
    return Drawing(
        column(column(*steps, gap=3, align="start"), legend, gap=12, align="start"),
        "Keys computed at each step of writing",
        f"Step by step a word is added, from {words[0]} to {words[-1]}. Each step computes one new "
        f"key, and all earlier ones again: {n * (n + 1) // 2} keys in {n} steps, of which "
        f"{n * (n - 1) // 2} repeat.",
    )


def _attends(sources: Mapping[str, Words], rule: str) -> Shape:
    """Texts above, an arrow from each to what is made of it, and the rule of the mask below."""
    boxes = [box(text(role[0], SMALL), role, pad=5) for role in Q_K_V]
    step, between, radius = boxes[0].width + 20, 22.0, 12
    middles = {role: n * step + boxes[0].width / 2 for n, role in enumerate(Q_K_V)}
    placed, ways = [], []
    for name, roles in sources.items():
        source = box(text(name, SMALL), "token", corner=radius)
        middle = sum(middles[role] for role in roles) / len(roles)
        placed.append((source, middle - source.width / 2, 0.0))
        top = source.height
        ways += [
            line([(middle, top + 2), (middles[role], top + between)], head=True) for role in roles
        ]
    parts = [(part, n * step, top + between + 2) for n, part in enumerate(boxes)]
    whole = over(
        2 * step + boxes[0].width,
        top + between + 2 + boxes[0].height,
        (Shape(0, 0, "".join(ways)), 0, 0),
        *placed,
        *parts,
    )
    return column(whole, text(rule, SMALL), gap=4)


def _beside(sign: str, words: Words) -> Shape:
    """A sign between matrices of so many rows that stand on one line."""
    return column(text(sign), space(height=len(words) * CELL / 2 - 8), gap=0)


def _line(words: str) -> Shape:
    """A label as high as a cell."""
    label = text(words, SMALL)
    return over(label.width, CELL, (label, 0, (CELL - label.height) / 2))


def _said(values: Tensor, digits: int) -> str:
    return " ".join(number(float(value), digits) for value in values)
