"""Drawings, chapter 13: what each rank holds of a model and of its batch, way by way of cutting."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from llmtutor.viz.diagrams.shapes import (
    SMALL,
    Drawing,
    Shape,
    box,
    column,
    lines,
    named,
    over,
    row,
    text,
)

Rect = tuple[float, float, float, float]
"""x, y, width, height."""

# Shards: bytes of the three kinds of state.

STATE = (("weights", 2, "weight"), ("gradients", 2, "vector"), ("optimizer", 12, "cache"))
"""Kind, bytes of a parameter with AdamW in mixed precision, and its colour."""
STAGES = ("copies (DDP)", "ZeRO stage 1", "ZeRO stage 2", "ZeRO stage 3 (FSDP)")
UNIT, WIDE = 8.0, 26.0
"""Height of a byte, and width of a rank."""


def held(stage: int, n_ranks: int) -> float:
    """Bytes of a parameter's state on each rank, when the last ``stage`` kinds are cut.

    >>> held(0, 4), held(1, 4), held(2, 4), held(3, 4)
    (16.0, 7.0, 5.5, 4.0)
    """
    kinds = [n_bytes for _, n_bytes, _ in STATE]
    whole = len(kinds) - stage
    return sum(kinds[:whole]) + sum(kinds[whole:]) / n_ranks


def draw_shards(n_parameters: int, n_ranks: int = 4) -> Drawing:
    """What each rank holds of a model's state: everything, and with one, two, three kinds cut."""
    panels, said = [], []
    for stage, name in enumerate(STAGES):
        cut = [kind for kind, *_ in STATE[len(STATE) - stage :]]
        size = f"{held(stage, n_ranks) * n_parameters / 1e9:.0f} GB"
        ranks = [_state(rank, n_ranks, cut) for rank in range(n_ranks)]
        picture = row(*ranks, gap=4)
        label = column(lines(name, SMALL, bold=True), lines(f"{size} on each", SMALL), gap=0)
        panels.append(column(label, row(_kinds(), picture, gap=6), gap=4, align="end"))
        said.append(f"{name}: {' and '.join(cut) or 'nothing'} cut, {size} on each rank")
    grid = column(row(*panels[:2], gap=8), row(*panels[2:], gap=8), gap=14)
    return Drawing(
        grid,
        f"State of {n_parameters / 1e9:.1f} billion parameters on {n_ranks} ranks",
        f"{'. '.join(said)}. A rank keeps one slice of what is cut, no two the same one.",
    )


def _kinds() -> Shape:
    """The names of the kinds, each in the middle of its stretch."""
    names = [text(kind, SMALL) for kind, *_ in STATE]
    width, y, placed = max(name.width for name in names), 0.0, []
    for name, (_, n_bytes, _) in zip(names, STATE, strict=True):
        placed.append((name, width - name.width, y + (UNIT * n_bytes - name.height) / 2))
        y += UNIT * n_bytes
    return over(width, y, *placed)


def _state(rank: int, n_ranks: int, cut: Collection[str]) -> Shape:
    """A rank from top to bottom; of a kind that is cut it has one slice, the rest is empty."""
    y, body = 0.0, ""
    for kind, n_bytes, role in STATE:
        height = UNIT * n_bytes
        if kind in cut:
            body += _rect((0, y, WIDE, height), "off", dashed=True)
            body += _rect((0, y + rank * height / n_ranks, WIDE, height / n_ranks), role)
        else:
            body += _rect((0, y, WIDE, height), role)
        y += height
    return Shape(WIDE, y, body)


def _rect(place: Rect, role: str, dashed: bool = False) -> str:
    x, y, width, height = place
    names = f"lt-{role}" + " lt-dashed" * dashed
    return (
        f'<rect class="{names}" x="{x:.4g}" y="{y:.4g}" width="{width:.4g}" height="{height:.4g}"/>'
    )


# The map: which tokens and which weights a rank works with.

SEQUENCES, TOKENS, LAYERS = 2, 4, 4
"""Of the batch and the model in the little pictures."""
SIDE, LONG, THICK = 12.0, 56.0, 14.0
"""Of a token; of a layer."""
ALL: Rect = (0, 0, 1, 1)


@dataclass(frozen=True)
class Way:
    """One way of cutting: what rank 0 and rank 1 hold, as shares of the batch and of each layer."""

    name: str
    sends: str
    """What travels, and when."""
    batch: tuple[Rect, Rect] = (ALL, ALL)
    """The part of the batch, sequences from top to bottom and tokens from left to right."""
    layers: tuple[Rect, Rect] = (ALL, ALL)
    """The part of every layer."""
    stages: tuple[Sequence[int], Sequence[int]] = (range(LAYERS), range(LAYERS))
    """Which layers."""
    experts: bool = False
    """Whether the layers are made of experts."""


TOP, BOTTOM, LEFT, RIGHT = (0, 0, 1, 0.5), (0, 0.5, 1, 0.5), (0, 0, 0.5, 1), (0.5, 0, 0.5, 1)
WAYS = (
    Way("data", "gradients,\nonce a step", batch=(TOP, BOTTOM)),
    Way(
        "data, sharded (FSDP)",
        "weights before use,\ngradients after",
        batch=(TOP, BOTTOM),
        layers=(TOP, BOTTOM),
    ),
    Way("tensor", "sums of vectors,\nin every layer", layers=(LEFT, RIGHT)),
    Way("pipeline", "vectors, at the cut", stages=(range(2), range(2, LAYERS))),
    Way("context", "keys and values,\nin every layer", batch=(LEFT, RIGHT)),
    Way(
        "expert",
        "tokens to experts and\nback, in every layer",
        batch=(TOP, BOTTOM),
        layers=(LEFT, RIGHT),
        experts=True,
    ),
)
"""The map, in the order of the chapter."""


def draw_map(ways: Sequence[Way] = WAYS) -> Drawing:
    """Two ranks for each way of cutting: the tokens and the layers that each of them holds."""
    panels = []
    for way in ways:
        ranks = row(_rank(0, way), _rank(1, way), gap=6)
        panels.append(
            column(text(way.name, bold=True), ranks, lines(f"sends {way.sends}", SMALL), gap=4)
        )
    pairs = [row(*panels[i : i + 2], gap=14, align="start") for i in range(0, len(panels), 2)]
    legend = row(
        Shape(SIDE, SIDE, _rect((0, 0, SIDE, SIDE), "token")),
        text("token", SMALL),
        Shape(24, SIDE, _rect((0, 0, 24, SIDE), "weight")),
        text("weights of a layer", SMALL),
        Shape(SIDE, THICK, _rect((0, 0, SIDE, THICK), "expert")),
        text("expert", SMALL),
        Shape(24, SIDE, _rect((0, 0, 24, SIDE), "off", dashed=True)),
        text("not held", SMALL),
        gap=6,
    )
    said = ". ".join(f"{way.name}: {_in_words(way)}; sends {way.sends}" for way in ways)
    return Drawing(
        column(*pairs, legend, gap=16),
        "Six ways to cut the work in two",
        f"{said.replace(chr(10), ' ')}.",
    )


def _in_words(way: Way) -> str:
    """Which share of the batch and of the layers a rank has."""
    names = {TOP: "half of the sequences", LEFT: "half of each sequence", ALL: "the whole batch"}
    if way.experts:
        weights = "half of the experts of each layer"
    elif way.stages[0] != way.stages[1]:
        weights = "half of the layers"
    else:
        weights = "all weights" if way.layers[0] == ALL else "half of each layer"
    return f"a rank has {names[way.batch[0]]} and {weights}"


def _rank(rank: int, way: Way) -> Shape:
    """A rank with its tokens above and its layers below."""
    batch = _batch(way.batch[rank])
    layers = [_layer(i, rank, way) for i in range(LAYERS)]
    inside = column(batch, *layers, gap=4)
    return named(box(inside, "rank", pad=7, corner=2, width=LONG + 22), f"rank {rank}")


def _batch(share: Rect) -> Shape:
    """Sequences of tokens, of which those outside of the share are not held."""
    x0, y0, width, height = share
    body = ""
    for i in range(SEQUENCES):
        for j in range(TOKENS):
            mine = y0 <= i / SEQUENCES < y0 + height and x0 <= j / TOKENS < x0 + width
            place = (j * (SIDE + 2), i * (SIDE + 2), SIDE, SIDE)
            body += _rect(place, "token" if mine else "off", dashed=not mine)
    return Shape(TOKENS * (SIDE + 2) - 2, SEQUENCES * (SIDE + 2) - 2, body)


def _layer(i: int, rank: int, way: Way) -> Shape:
    """A layer: the share of it that the rank holds, or four experts, or nothing."""
    x, y, width, height = way.layers[rank]
    if i not in way.stages[rank]:
        return Shape(LONG, THICK, _rect((0, 0, LONG, THICK), "off", dashed=True))
    if way.experts:
        each, body = LONG / 4, ""
        for e in range(4):
            mine = x <= e / 4 < x + width
            role = "expert" if mine else "off"
            body += _rect((e * each, 0, each - 2, THICK), role, dashed=not mine)
        return Shape(LONG, THICK, body)
    body = ""
    if (x, y, width, height) != ALL:
        body = _rect((0, 0, LONG, THICK), "off", dashed=True)
    body += _rect((x * LONG, y * THICK, width * LONG, height * THICK), "weight")
    return Shape(LONG, THICK, body)
