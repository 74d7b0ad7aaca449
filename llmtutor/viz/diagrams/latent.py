"""Drawings, chapter 15: what of a token stays, two ways from it to the scores, and what it weighs.

Each is made from its tensors, and its description says the numbers that stand in it.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from llmtutor.viz.diagrams.language import matrix, named, number, vector
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

Words = Sequence[str]
BAR, THIN = 340.0, 2.0
"""Length of the longest bar, and the least that is still seen."""
GAP = 18.0
"""Between the two vectors that stay."""


def draw_latent(word: str, x: Tensor, latent: Tensor, key: Tensor, heads: Tensor) -> Drawing:
    """One token: x (d_model,), its latent and the turned key, which alone are kept, and of each
    head the plain key and the value that are made from the latent, (heads, 2, width)."""
    onward = _way("× W_UK, W_UV of each")
    stay = (
        column(named(vector(latent, "cache", digits=0), "latent c"), space(onward.width)),
        column(named(vector(key, "key"), "turned key"), space(onward.width)),
    )
    drawer = box(
        column(row(*stay, gap=GAP), text("the cache: all that stays", SMALL), gap=2),
        "plain",
        dashed=True,
    )
    made = []
    for n, (plain, value) in enumerate(heads):
        whole = row(vector(plain, "key", digits=0), vector(key, "key"), gap=0)
        inside = column(
            named(whole, "key: plain, turned"),
            named(vector(value, "value", digits=0), "value"),
            gap=5,
        )
        made.append(named(box(inside, corner=9), f"head {n}"))
    said = "; ".join(
        f"head {n} the key {_said(plain)} and the value {_said(value)}"
        for n, (plain, value) in enumerate(heads)
    )
    return Drawing(
        column(
            named(vector(x, digits=0), f"x of {word}"),
            _apart("× W_DKV", "× W_KR,\nthen RoPE", onward.width + GAP),
            drawer,
            row(onward, column(_way("to every head"), space(onward.width), gap=0), gap=GAP),
            box(row(*made, gap=8), corner=9),  # both ways lead to all heads
            gap=4,
        ),
        f"What {word} leaves behind",
        f"The vector {_said(x)} of {word} becomes, by W_DKV, the latent {_said(latent)} and, by "
        f"W_KR and RoPE, the turned key {_said(key, 1)}. These {len(latent) + len(key)} numbers "
        f"are kept. From the latent {said}; the turned key is the same for all heads.",
    )


def draw_two_paths(words: Words, q: Tensor, key_up: Tensor, latents: Tensor) -> Drawing:
    """Both paths to one head's plain scores: q (nope,), key_up (nope, kv_rank), latents
    (k, kv_rank).

    Raises:
        ValueError: paths that disagree.
    """
    keys, absorbed = latents @ key_up.T, q @ key_up
    scores = keys @ q
    if not bool((latents @ absorbed - scores).abs().max() < 1e-6):
        raise ValueError("the two paths give other scores: they are not the same head's")
    cached = matrix(latents, "cache", digits=0, rows=words)
    left = column(
        named(cached, "latents, in the cache"),
        _way("× W_UK, for each"),
        named(matrix(keys, "key", digits=0, rows=words), "keys"),
        _way(f"· q = {_pair(q)}"),
        gap=4,
    )
    right = column(
        named(vector(q, "query", digits=0), "query q"),
        _way("× W_UK, once"),
        named(vector(absorbed, "query", digits=0), "absorbed query"),
        _way("· each latent"),
        named(matrix(latents, "cache", digits=0, rows=words), "latents, in the cache"),
        arrow(14, to="down"),
        gap=4,
    )
    result = matrix(scores[:, None], "new", digits=0, rows=words)
    return Drawing(
        row(
            _titled("first way:\nmake the keys", column(left, result, gap=4)),
            _titled("second way:\nabsorb", column(right, result, gap=4)),
            gap=44,
            align="end",
        ),
        f"Two ways to the same {len(words)} scores",
        f"Left, the latents {_rows(words, latents)} are made into keys {_rows(words, keys)}, which "
        f"meet the query {_said(q)}. Right, the query is made into {_said(absorbed)}, which meets "
        f"the latents. Both give the scores {_said(scores)}.",
    )


def draw_numbers(kept: Mapping[str, int], marked: str) -> Drawing:
    """Numbers that a token leaves in a layer, as bars; ``marked`` names the new one."""
    longest = max(kept.values())
    bars = []
    for name, numbers in kept.items():
        length = max(THIN, BAR * numbers / longest)
        bar = box(space(), "new" if name == marked else "cache", width=length, height=14, pad=0)
        words = row(text(name, SMALL, bold=name == marked), text(f"{numbers:,}", SMALL), gap=8)
        bars.append(column(words, bar, gap=1, align="start"))
    said = ", ".join(f"{name} {numbers:,}" for name, numbers in kept.items())
    return Drawing(
        column(*bars, gap=7, align="start"),
        "Numbers that a token leaves in each layer",
        f"Bars of one scale: {said}.",
    )


def _way(label: str) -> Shape:
    """What is done, above an arrow."""
    return column(text(label, SMALL), arrow(12, to="down"), gap=0)


def _titled(title: str, shape: Shape) -> Shape:
    return column(lines(title, SMALL, bold=True), shape, gap=14)


def _apart(left: str, right: str, width: float) -> Shape:
    """Two ways from one place above to two below, ``width`` apart, each with its label outside."""
    height, words = 34.0, (lines(left, SMALL), lines(right, SMALL))
    side = max(label.width for label in words)
    whole = width + 2 * side
    ends = (side, side + width)
    ways = "".join(line([(whole / 2, 0), (x, height)], head=True) for x in ends)
    return over(
        whole,
        height,
        (Shape(0, 0, ways), 0, 0),
        (words[0], ends[0] + 8 - words[0].width / 2, 0),
        (words[1], ends[1] + 18 - words[1].width / 2, 0),
    )


def _said(values: Tensor, digits: int = 0) -> str:
    return " ".join(number(float(value), digits) for value in values)


def _pair(values: Tensor) -> str:
    return f"({', '.join(number(float(value), 0) for value in values)})"


def _rows(words: Words, values: Tensor) -> str:
    return "; ".join(f"{word} {_said(one)}" for word, one in zip(words, values, strict=True))
