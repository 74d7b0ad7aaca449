"""Drawings, chapter 19: a state on its way through a text, a scan by doubling, Mamba's block."""

from collections.abc import Sequence

from torch import Tensor

from llmtutor.layers.recurrent.mamba import MambaConfig
from llmtutor.viz.diagrams.language import number, state, token
from llmtutor.viz.diagrams.shapes import (
    SMALL,
    Drawing,
    Shape,
    box,
    line,
    lines,
    over,
    text,
)

STEP = 62.0
"""Units from one token to the next."""


def draw_unrolled(
    words: Sequence[str], inputs: Sequence[float], states: Sequence[float], stays: float
) -> Drawing:
    """Each token gives its number to the state, which keeps ``stays`` of what it was."""
    placed: list[tuple[Shape, float, float]] = []
    ways = []
    y_state = 86.0
    start = state("0")
    placed.append((start, 0.0, y_state))
    middle = y_state + start.height / 2
    left = start.width
    for i, (word, x, h) in enumerate(zip(words, inputs, states, strict=True)):
        centre = start.width / 2 + (i + 1) * STEP
        pill, value, circle = token(word), text(number(x, 0), SMALL), state(number(h, 2))
        placed.append((pill, centre - pill.width / 2, 0.0))
        placed.append((value, centre - value.width / 2, pill.height + 6))
        placed.append((circle, centre - circle.width / 2, middle - circle.height / 2))
        ways.append(
            line([(centre, pill.height + 24), (centre, middle - circle.height / 2)], head=True)
        )
        ways.append(line([(left, middle), (centre - circle.width / 2, middle)], "state", head=True))
        factor = text(f"×{stays:g}", SMALL)
        between = (left + centre - circle.width / 2) / 2
        placed.append((factor, between - factor.width / 2, middle + 4))
        left = centre + circle.width / 2
    width = left + 4
    said = ", ".join(
        f"{w} brings {x:g} and leaves the state at {number(h, 2)}"
        for w, x, h in zip(words, inputs, states, strict=True)
    )
    return Drawing(
        over(width, middle + 26, (Shape(width, 1, "".join(ways)), 0.0, 0.0), *placed),
        "One number carried through a text",
        f"The state starts at 0. At each token {stays:g} of it stays, and {1 - stays:g} of the "
        f"token's number comes in: {said}.",
    )


def draw_doubling(rounds: Sequence[Sequence[tuple[float, float]]]) -> Drawing:
    """A scan by doubling: in each row the pairs (a, b) of all tokens, and who was joined to whom.

    ``rounds`` are the pairs before the first round, after it, and so on.
    """
    seq = len(rounds[0])
    cell = 44.0
    placed: list[tuple[Shape, float, float]] = []
    ways = []
    lift = 66.0
    for k, pairs in enumerate(rounds):
        y = k * lift
        for t, (a, b) in enumerate(pairs):
            words = lines(f"{number(a, 2)}\n{number(b, 2)}", SMALL)
            done = t < 2**k
            frame = box(words, "state" if done else "plain", width=cell - 4, pad=3)
            placed.append((frame, t * cell, y))
            if k:
                top = (k - 1) * lift + frame.height
                x = t * cell + (cell - 4) / 2
                ways.append(line([(x, top), (x, y)]))
                if t >= (reach := 2 ** (k - 1)):
                    ways.append(line([(x - reach * cell, top), (x, y)], "state", head=True))
    height = (len(rounds) - 1) * lift + 44
    ends = "; ".join(
        f"after round {k} " + ", ".join(f"({a:.2g}, {b:.3g})" for a, b in pairs)
        for k, pairs in enumerate(rounds)
    )
    return Drawing(
        over(seq * cell - 4, height, (Shape(1, 1, "".join(ways)), 0.0, 0.0), *placed),
        f"A scan of {seq} tokens in {len(rounds) - 1} rounds",
        "Each box is a step: above its factor a, below what it adds, b. In each round a step is "
        f"joined to the one 1, 2, 4 … places before it. Filled boxes reach back to the beginning: "
        f"their b is the state. {ends}.",
    )


def draw_mamba(config: MambaConfig, d_model: int) -> Drawing:
    """The mixer from its configuration, with the widths that it has in a model of ``d_model``."""
    inner, n, rank = config.expand * d_model, config.d_state, config.rank(d_model)
    wide, left, right = 150.0, 0.0, 200.0
    parts = [
        (box(lines(f"stream: {d_model:,}"), "vector", width=350), 0.0, 0.0),
        (box(lines(f"projection to 2 × {inner:,}"), "weight", width=350), 0.0, 46.0),
        (
            box(lines(f"convolution\nover {config.d_conv} tokens, SiLU"), "weight", width=wide),
            left,
            104.0,
        ),
        (box(lines(f"v: {inner:,}"), "value", width=wide), left, 166.0),
        (box(lines("SiLU"), "plain", width=wide), right, 166.0),
        (
            box(lines(f"Δ: {inner:,} (through {rank:,})\nB: {n}, C: {n}"), "new", width=wide),
            right,
            212.0,
        ),
        (
            box(lines(f"state: {inner:,} × {n}\nh ← e^(ΔA) h + Δ B v"), "state", width=wide),
            left,
            268.0,
        ),
        (box(lines("y = C · h + D v"), "value", width=wide), left, 330.0),
        (box(lines("×"), "plain", corner=16), 262.0, 328.0),
        (box(lines(f"projection to {d_model:,}"), "weight", width=350), 0.0, 384.0),
    ]
    centre, gate = left + wide / 2, 275.0
    ways = [
        line([(175, 27), (175, 46)], head=True),
        line([(centre, 73), (centre, 104)], head=True),
        line([(centre, 146), (centre, 166)], head=True),
        line([(centre, 193), (centre, 268)], head=True),
        line([(wide, 180), (176, 180), (176, 232), (right, 232)], head=True),
        line([(gate, 254), (gate, 290), (wide, 290)], "new", head=True),
        line([(gate, 73), (gate, 166)], head=True),
        line([(350, 180), (358, 180), (358, 342), (290, 342)], head=True),
        line([(centre, 310), (centre, 330)], head=True),
        line([(wide, 344), (262, 344)], head=True),
        line([(gate, 358), (gate, 384)], head=True),
    ]
    gate_name = (text("gate", SMALL), 282.0, 120.0)
    shape = over(360, 414, (Shape(1, 1, "".join(ways)), 0.0, 0.0), *parts, gate_name)
    return Drawing(
        shape,
        f"A Mamba mixer in a model of width {d_model:,}",
        f"From the stream of {d_model:,} numbers a projection makes two branches of {inner:,}. The "
        f"left one passes a causal convolution over {config.d_conv} tokens and SiLU and is called "
        f"v. From v come the steps Δ ({inner:,}, through {rank:,} numbers), B and C ({n} each). "
        f"They drive a state of {inner:,} × {n} numbers, from which y is read. The right branch "
        f"passes SiLU and is multiplied with y. A last projection leads back to {d_model:,}.",
    )


def pairs_of(a: Tensor, b: Tensor) -> list[tuple[float, float]]:
    """Two rows of numbers as the pairs of one."""
    return list(zip(a.tolist(), b.tolist(), strict=True))
