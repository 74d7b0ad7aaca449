"""Drawings, chapter 19: a state on its way through a text, a scan by doubling, Mamba's block."""

import math
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
RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


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
        kept, enters = (text(f"×{factor:g}", SMALL) for factor in (stays, 1 - stays))
        between = (left + centre - circle.width / 2) / 2
        placed.append((kept, between - kept.width / 2, middle + 4))
        placed.append((enters, centre - 3 - enters.width, pill.height + 25))
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
            words = lines(f"{_factor(a)}\n{number(b, 2)}", SMALL)
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


def _factor(a: float) -> str:
    """A power of two below 1 as such, since a product of many is nearly 0; another as it is."""
    mantissa, exponent = math.frexp(a)
    if mantissa != 0.5 or a >= 1:
        return number(a, 2)
    return "2⁻" + str(1 - exponent).translate(RAISED)


def draw_mamba(config: MambaConfig, d_model: int) -> Drawing:
    """The mixer from its configuration, with the widths that it has in a model of ``d_model``."""
    inner, n, rank = config.expand * d_model, config.d_state, config.rank(d_model)
    wide, right = 150.0, 200.0
    state_box = box(lines(f"state: {inner:,} × {n}\nh ← e^(ΔA) h + Δ B v"), "state", width=wide)
    drive = box(lines(f"Δ: {inner:,}\nB: {n}"), "new", width=90)
    select = box(lines(f"projection to\n{rank:,} + {n} + {n}"), "weight", width=wide)
    parts = [
        (box(lines(f"stream: {d_model:,}"), "vector", width=350), 0.0, 0.0),
        (box(lines(f"projection to 2 × {inner:,}"), "weight", width=350), 0.0, 46.0),
        (
            box(lines(f"convolution\nover {config.d_conv} tokens, SiLU"), "weight", width=wide),
            0.0,
            104.0,
        ),
        (box(lines(f"v: {inner:,}"), "value", width=wide), 0.0, 166.0),
        (box(lines("SiLU"), "plain", width=wide), right, 150.0),
        (select, right, 196.0),
        (drive, right, 262.0),
        (box(lines(f"C: {n}"), "new", width=50), 300.0, 262.0),
        (state_box, 0.0, 262.0),
        (box(lines("y = C · h + D v"), "value", width=wide), 0.0, 340.0),
        (box(lines("×"), "plain", corner=16), 262.0, 338.0),
        (box(lines(f"projection to {d_model:,}"), "weight", width=350), 0.0, 394.0),
    ]
    centre, gate, below = wide / 2, 275.0, 262 + state_box.height
    ways = [
        line([(175, 27), (175, 46)], head=True),
        line([(centre, 73), (centre, 104)], head=True),
        line([(centre, 146), (centre, 166)], head=True),
        line([(centre, 193), (centre, 262)], head=True),
        line([(wide, 180), (176, 180), (176, 217), (right, 217)], head=True),
        line([(245, 196 + select.height), (245, 262)], "new", head=True),
        line([(325, 196 + select.height), (325, 262)], "new", head=True),
        line([(right, 283), (state_box.width, 283)], "new", head=True),
        line([(325, 289), (325, 322), (120, 322), (120, 340)], "new", head=True),
        line([(gate, 73), (gate, 150)], head=True),
        line([(350, 164), (358, 164), (358, 352), (290, 352)], head=True),
        line([(centre, below), (centre, 340)], head=True),
        line([(wide, 354), (262, 354)], head=True),
        line([(gate, 368), (gate, 394)], head=True),
    ]
    gate_name = (text("gate", SMALL), 282.0, 112.0)
    shape = over(360, 424, (Shape(1, 1, "".join(ways)), 0.0, 0.0), *parts, gate_name)
    return Drawing(
        shape,
        f"A Mamba mixer in a model of width {d_model:,}",
        f"From the stream of {d_model:,} numbers a projection makes two branches of {inner:,}. The "
        f"left one passes a causal convolution over {config.d_conv} tokens and SiLU and is called "
        f"v. From v a projection makes B and C, {n} numbers each, and {rank:,} numbers, from which "
        f"come the steps Δ, {inner:,} of them. Δ and B drive a state of {inner:,} × {n} numbers; C "
        "reads y from it. The right branch passes SiLU and is multiplied with y. A last projection "
        f"leads back to {d_model:,}.",
    )


def pairs_of(a: Tensor, b: Tensor) -> list[tuple[float, float]]:
    """Two rows of numbers as the pairs of one."""
    return list(zip(a.tolist(), b.tolist(), strict=True))
