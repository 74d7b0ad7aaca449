"""Drawings, chapter 12: a budget in equal areas, µP at two widths, two lengths, a sealed bet."""

import math
from collections.abc import Mapping, Sequence

from llmtutor.experiments.scaling import Prediction
from llmtutor.viz.diagrams.language import number
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
    over,
    row,
    space,
    text,
)

SIDE = 300.0
"""Units of a side of the field in which the rectangles of a budget lie."""


def draw_budget(flops: float, sizes: Sequence[float]) -> Drawing:
    """One budget spent on models of several sizes: parameters up, tokens to the right.

    All rectangles have the area N · D = flops / 6; their corners lie on one hyperbola.
    """
    product = flops / 6
    divisions = [(n, product / n) for n in sorted(sizes)]
    most_n, most_d = divisions[-1][0], divisions[0][1]
    left, top, label = 20.0, 30.0, 1.3 * SMALL
    placed, said = [], []
    inner: list[tuple[Shape, float, float]] = []
    for n, d in divisions:
        width, height = SIDE * d / most_d, SIDE * n / most_n
        frame = f'<rect class="lt-weight" width="{width:.4g}" height="{height:.4g}" '
        frame += 'style="fill-opacity:0.45"/>'
        placed.append((Shape(width, height, frame), left, top + SIDE - height))
        words = text(f"N = {n:,.0f}, D = {d:,.0f}", SMALL)
        if inside := width > words.width + 12 and height > label + 4:
            x, y = left + width - words.width - 6, top + SIDE - (height + label) / 2
        else:
            x, y = min(left + width + 6, WIDEST - 2 - words.width), top + SIDE - height - 12
        # Later rectangles are narrower: what stands inside of one keeps clear of them.
        (inner if inside else placed).append((words, x, y))
        said.append(f"{n:,.0f} parameters with {d:,.0f} tokens")
    steps = [math.exp(t / 40 * math.log(most_n / divisions[0][0])) for t in range(41)]
    curve = [(left + SIDE / s, top + SIDE - SIDE * s * divisions[0][0] / most_n) for s in steps]
    axes = line([(left, top + SIDE), (left, top - 8)], head=True) + line(
        [(left, top + SIDE), (left + SIDE + 24, top + SIDE)], head=True
    )
    across, up = text("tokens D", SMALL), text("parameters N", SMALL)
    return Drawing(
        over(
            WIDEST - 2,
            top + SIDE + 22,
            *placed,
            (Shape(0, 0, line(curve, "off") + axes), 0, 0),
            *inner,
            (up, 2, 0),
            (across, left + SIDE - across.width, top + SIDE + 4),
        ),
        "One budget, three ways to spend it",
        f"Rectangles of equal area, with their corners on one curve, for 6ND = {flops:.3g} "
        f"operations: {'; '.join(said)}.",
    )


def draw_mup(base: int, width: int, vocab_size: int) -> Drawing:
    """A model at two widths: how its matrices begin, and at which part of the rate they learn.

    What µP sets otherwise than the standard parametrisation stands in the colour of what is new.
    """
    times = width // base
    heads = [text(f"width {d}", SMALL, bold=True) for d in (base, width)]
    parts = (
        ("embedding", "1", ("1", "1"), ("η", "η"), ()),
        ("hidden", "h", _stds(base, width), ("η", f"η / {times}"), ("rate",)),
        ("output", "o", (_std(base), _std(base)), ("η", "η"), ("start",)),
    )
    rows, said = [], []
    for name, kind, starts, rates, new in parts:
        sizes = {
            "1": [(vocab_size, d) for d in (base, width)],
            "h": [(d, d) for d in (base, width)],
            "o": [(d, vocab_size) for d in (base, width)],
        }[kind]
        cells = [text(name, SMALL)]
        for i, (tall, wide) in enumerate(sizes):
            facts = [
                _fact(f"std {starts[i]}", i == 1 and "start" in new),
                _fact(f"rate {rates[i]}", i == 1 and "rate" in new),
            ]
            if kind == "o":
                facts.append(_fact(f"logits / {(1, times)[i]}", i == 1))
            cells.append(row(_sized(tall, wide), column(*facts, gap=3, align="start"), gap=6))
            said.append(
                f"{name} at width {(base, width)[i]}: standard deviation {starts[i]}, rate "
                f"{rates[i]}" + (f", logits divided by {(1, times)[i]}" if kind == "o" else "")
            )
        rows.append(cells)
    widths = [max(cells[j].width for cells in rows) for j in range(3)]
    body = [row(*(_wide(c, w) for c, w in zip(cells, widths, strict=True))) for cells in rows]
    top = row(*(_wide(c, w) for c, w in zip([space(1, 1), *heads], widths, strict=True)))
    return Drawing(
        column(top, *body, gap=14, align="start"),
        "What µP changes when a model is widened",
        f"{'; '.join(said)}.",
    )


def _std(fan_in: int) -> str:
    return number(fan_in**-0.5, 2)


def _stds(base: int, width: int) -> tuple[str, str]:
    return _std(base), _std(width)


def _fact(words: str, new: bool) -> Shape:
    return box(text(words, SMALL), "new" if new else "plain", pad=4, corner=3)


def _sized(tall: int, wide: int) -> Shape:
    """A matrix, its sides to one scale in all matrices of the drawing."""
    width, height = max(wide / 3.4, 6.0), max(tall / 3.4, 6.0)
    frame = f'<rect class="lt-weight" width="{width:.4g}" height="{height:.4g}"/>'
    return Shape(width, height, frame)


def _wide(shape: Shape, width: float) -> Shape:
    """The shape at the left of so much room."""
    return over(max(width, shape.width), shape.height, (shape, 0, 0))


def draw_two_lengths(
    lengths: Sequence[float],
    laws: Mapping[float, Sequence[float]],
    measured: float,
) -> Drawing:
    """Laws by their exponent β, each with its losses at ``lengths``: the first two are fitted.

    The last length is hidden from the fit; ``measured`` is the loss that was found there.
    """
    wide, high, left, top = 214.0, 190.0, 42.0, 26.0
    every = [loss for losses in laws.values() for loss in losses] + [measured]
    low, most = min(every), max(every)
    first, last = math.log(lengths[0]), math.log(lengths[-1])

    def place(length: float, loss: float) -> tuple[float, float]:
        along = (math.log(length) - first) / (last - first)
        return left + wide * along, top + high * (most - loss) / (most - low)

    ways, placed, said = "", [], []
    for beta, losses in laws.items():
        ways += line([place(*at) for at in zip(lengths, losses, strict=True)], "query")
        x, y = place(lengths[-1], losses[-1])
        placed.append((text(f"β = {beta:g}: {losses[-1]:.2f}", SMALL), x + 8, y - 8))
        said.append(f"β = {beta:g} promises {losses[-1]:.2f}")
    any_law = next(iter(laws.values()))
    for length in (lengths[0], lengths[_second(lengths, laws)]):
        x, y = place(length, any_law[list(lengths).index(length)])
        ways += f'<circle class="lt-token" cx="{x:.4g}" cy="{y:.4g}" r="5"/>'
    x, y = place(lengths[-1], measured)
    ways += f'<circle class="lt-new" cx="{x:.4g}" cy="{y:.4g}" r="5"/>'
    low_row = top + high + 30
    ways += f'<circle class="lt-new" cx="{left:.4g}" cy="{low_row + 9:.4g}" r="5"/>'
    placed.append((text(f"measured {measured:.2f}", SMALL, bold=True), left + 10, low_row))
    ways += f'<circle class="lt-token" cx="{left:.4g}" cy="{low_row + 27:.4g}" r="5"/>'
    placed.append((text("lengths of the fit", SMALL), left + 10, low_row + 18))
    for length in (lengths[0], lengths[_second(lengths, laws)], lengths[-1]):
        words = text(f"{length / 1000:,.0f}k", SMALL)
        x, _ = place(length, low)
        placed.append((words, x - words.width / 2, top + high + 12))
    axis = line([(left, top + high + 10), (left + wide + 10, top + high + 10)], head=True)
    name = text("characters read", SMALL)
    return Drawing(
        over(
            left + wide + 100,
            top + high + 66,
            (Shape(0, 0, axis + ways), 0, 0),
            *placed,
            (text("loss (nats)", SMALL), 0, 0),
            (name, left + wide - name.width, low_row),
        ),
        "All go through the same two points",
        f"Losses against the characters read. {len(laws)} laws agree at the two lengths that were "
        f"fitted, and at the third {', '.join(said)}; measured was {measured:.2f}.",
    )


def _second(lengths: Sequence[float], laws: Mapping[float, Sequence[float]]) -> int:
    """The last place at which all laws still agree."""
    spread = [max(at) - min(at) for at in zip(*laws.values(), strict=True)]
    together = [i for i, gap in enumerate(spread) if gap < 1e-3]
    if len(together) < 2 or len(lengths) <= max(together) + 1:
        raise ValueError("expected laws that agree at two lengths and part beyond them")
    return max(together)


def draw_bet(
    found: Mapping[str, str], bet: Prediction, sealed: str, started: str, outcome: float
) -> Drawing:
    """From studies, {name: what it gave}, to a sealed prediction and what came of it.

    ``sealed`` and ``started`` are times: of the prediction and of the first run that it is about.
    """
    if started < sealed:
        raise ValueError(f"a bet sealed at {sealed} on a run started at {started} is none")
    pieces: list[Shape] = []
    for name, gave in found.items():
        study = box(text(name, SMALL, mono=True), "token", pad=5)
        pieces += [row(study, arrow(16), lines(gave, SMALL), gap=6), arrow(12, to="down")]
    promised = f"{bet.low:.3f} to {bet.high:.3f} ({bet.coverage:.0%})"
    seal = box(
        column(text("sealed", bold=True), text(promised), text(sealed, SMALL), gap=2),
        "new",
        width=190,
    )
    verdict = "inside" if outcome in bet else "outside"
    run = box(
        column(text(f"run: {outcome:.3f}, {verdict}"), text(started, SMALL), gap=2), width=190
    )
    return Drawing(
        column(*pieces, seal, arrow(14, to="down"), run, gap=4),
        "From small runs to a bet",
        f"{'; '.join(f'{name}: {gave}'.replace(chr(10), ' ') for name, gave in found.items())}. "
        f"Sealed at {sealed}: {promised}. Run at {started}: {outcome:.3f}, {verdict}.",
    )
