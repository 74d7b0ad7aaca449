"""Drawings, chapter 06: vectors that turn, dials, partners in a head, keys on their way to a cache.

Angles are counterclockwise, as in the formulas.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from llmtutor.layers.positions import convert_pairing
from llmtutor.viz.diagrams.language import CELL, number, token, vector
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

PLANE = 54.0
"""Half a side of the plane in which vectors turn."""
DIAL, RING = 25.0, 8.0
"""Radius of the inner ring of a dial; how wide it is, and how far the next one lies outside."""
PAIR_ROLES = ("query", "key", "value", "norm", "state", "token", "cache", "weight")
"""Colours of the pairs of a head."""
AXIS = 270.0
"""Length of the axis of wavelengths."""
Vector = tuple[float, float]
Place = Callable[[float], float]


def turned(vector: Vector, degrees: float) -> Vector:
    """A vector of two components after a turn.

    >>> [round(x, 2) for x in turned((2.0, 0.0), 90.0)]
    [0.0, 2.0]
    """
    z = complex(*vector) * complex(math.cos(math.radians(degrees)), math.sin(math.radians(degrees)))
    return z.real, z.imag


def draw_turns(q: Vector, k: Vector, degrees: float, places: Sequence[tuple[int, int]]) -> Drawing:
    """The same query and key at several places (m, n), turned by ``degrees`` a token."""
    planes, said = [], []
    for m, n in places:
        query, key = turned(q, degrees * m), turned(k, degrees * n)
        product = number(query[0] * key[0] + query[1] * key[1], 2)
        between = (_angle(query) - _angle(key) + 180) % 360 - 180
        planes.append(
            column(
                text(f"m = {m}, n = {n}", SMALL),
                _plane(query, key, max(math.hypot(*q), math.hypot(*k)), between),
                text(f"{between:.0f}°".replace("-", "−"), SMALL),
                text(f"q · k = {product}", SMALL, bold=True),
                gap=2,
            )
        )
        said.append(
            f"query at {m} turned by {degrees * m:g}° to {_pair(query)}, key at {n} by "
            f"{degrees * n:g}° to {_pair(key)}: {number(between, 0)}° from key to query, "
            f"product {product}"
        )
    return Drawing(
        row(*planes, gap=6),
        "One query and one key, turned by their positions",
        f"Unturned, the query is {_pair(q)} and the key {_pair(k)}. {'; '.join(said)}.",
    )


def _plane(query: Vector, key: Vector, longest: float, between: float) -> Shape:
    """Two arrows from the middle, and the arc from the key to the query."""
    unit = (PLANE - 8) / longest
    marks = [
        f'<circle class="lt-plain" cx="{PLANE:g}" cy="{PLANE:g}" r="{PLANE - 8:g}"/>',
        line([(8, PLANE), (2 * PLANE - 8, PLANE)], "off"),
        line([(PLANE, 8), (PLANE, 2 * PLANE - 8)], "off"),
        _arc(PLANE, 18, _angle(key), between, 3, "plain"),
    ]
    labels = []
    for x, role, name in ((key, "key", "k"), (query, "query", "q")):
        end = PLANE + unit * x[0], PLANE - unit * x[1]
        marks.append(line([(PLANE, PLANE), end], role, head=True, width=2.5))
        label = text(name, SMALL, bold=True)
        # Beside the tip, on the side away from the other arrow.
        side = 1 if (between > 0) == (name == "q") else -1
        at = _at(PLANE, unit * math.hypot(*x) - 4, _angle(x) + side * 14)
        labels.append((label, at[0] - label.width / 2, at[1] - label.height / 2))
    return over(2 * PLANE, 2 * PLANE, (Shape(0, 0, "".join(marks)), 0, 0), *labels)


def draw_dials(before: Sequence[float], now: Sequence[float] | None, title: str) -> Drawing:
    """A dial for each pair: turns in training on the inner ring, and now on the outer one."""
    dials = []
    for i, turns in enumerate(before):
        later = None if now is None else now[i]
        words = _turns(turns) if later is None else f"{_turns(turns)} → {_turns(later)}"
        label = column(text(f"pair {i}", SMALL), text(words, SMALL), gap=0)
        dials.append(column(_dial(turns, later), label, gap=2))
    width = max(dial.width for dial in dials)
    cells = [column(space(width), dial, gap=0) for dial in dials]
    rows = [row(*cells[i : i + 4], gap=5) for i in range(0, len(cells), 4)]
    said = f"Turns of pairs 0 to {len(before) - 1}: {', '.join(map(_turns, before))}"
    if now is not None:
        said += f"; now {', '.join(map(_turns, now))}"
    return Drawing(column(*rows, gap=8), title, f"{said}.")


def _dial(before: float, now: float | None) -> Shape:
    outer = DIAL + RING if now is None else DIAL + 2 * RING
    marks = [f'<circle class="lt-plain" cx="{outer:g}" cy="{outer:g}" r="{outer - 2:g}"/>']
    marks.append(_arc(outer, DIAL, 0, 360 * min(before, 0.9999), RING - 1, "query"))
    if now is not None:
        marks.append(_arc(outer, DIAL + RING, 0, 360 * min(now, 0.9999), RING - 1, "key"))
    tip = _at(outer, DIAL - 6, 360 * (before if now is None else now))
    marks.append(line([(outer, outer), tip], head=True, width=2))
    return Shape(2 * outer, 2 * outer, "".join(marks))


def draw_pairings(head_dim: int) -> Drawing:
    """The rows of one head, sorted from the interleaved pairing to the half pairing."""
    order = convert_pairing(Tensor(range(head_dim)), 1, "interleaved", "half").int().tolist()
    step = CELL + 12.0
    ways = [line([((i + 0.5) * step, 0), ((order.index(i) + 0.5) * step, 44)], head=True)
            for i in range(head_dim)]  # fmt: skip
    partners = [(i, i + 1) for i in range(0, head_dim, 2)]
    apart = [(i, i + head_dim // 2) for i in range(head_dim // 2)]
    shape = column(
        text("interleaved: partners are neighbours", bold=True),
        _links(partners, step, head_dim, up=True),
        _cells(range(head_dim), step),
        Shape(step * head_dim, 44, "".join(ways)),
        _cells(order, step),
        _links(apart, step, head_dim, up=False),
        text("half: partners are half a head apart", bold=True),
        gap=2,
    )
    return Drawing(
        shape,
        f"One head of {head_dim} components in both pairings",
        f"Interleaved, the pairs are {str(partners)[1:-1]}. Sorted to {order}, all first members "
        f"and then all second ones, the same pairs stand at places {str(apart)[1:-1]}.",
    )


def _cells(indices: Sequence[int], step: float) -> Shape:
    return row(*(box(text(str(i), SMALL), PAIR_ROLES[i // 2 % 8], width=step, height=CELL, pad=3)
                 for i in indices), gap=0)  # fmt: skip


def _links(places: Sequence[tuple[int, int]], step: float, n: int, *, up: bool) -> Shape:
    """Bows above or below the cells of partners."""
    height = 12.0 if places[0][1] - places[0][0] == 1 else 26.0
    bows = []
    for a, b in places:
        x0, x1 = (a + 0.5) * step, (b + 0.5) * step
        y, top = (height, -0.6 * height) if up else (0.0, 1.6 * height)
        bows.append(
            f'<path class="lt-line" d="M{x0:g} {y:g}Q{(x0 + x1) / 2:g} {top:g} {x1:g} {y:g}"/>'
        )
    return Shape(n * step, height, "".join(bows))


def draw_cache(
    words: Sequence[str], keys: Sequence[Vector], query: Vector, degrees: float
) -> Drawing:
    """Keys are turned once, by their own position, and kept; the last token's query meets them."""
    last = len(words) - 1
    asked = turned(query, degrees * last)
    kept = [turned(key, degrees * p) for p, key in enumerate(keys)]
    scores = [a * asked[0] + b * asked[1] for a, b in kept]
    longest = max(math.hypot(*x) for x in (query, *keys))

    def beside(shapes: Sequence[Shape]) -> Shape:
        return row(*(column(space(60), shape, gap=0) for shape in shapes), gap=4)

    arriving = beside([column(token(word), text(f"position {p}", SMALL), gap=3)
                       for p, word in enumerate(words)])  # fmt: skip
    turning = [column(arrow(14, to="down"), text(f"+{degrees * p:g}°", SMALL), gap=3)
               for p in range(last + 1)]  # fmt: skip
    drawer = box(beside([_disc(key, "key", longest) for key in kept]), dashed=True, pad=4)
    asking = row(
        text(f"query of “{words[-1]}”", SMALL),
        _disc(query, "query", longest),
        column(arrow(24), text(f"+{degrees * last:g}°", SMALL), gap=0),
        _disc(asked, "query", longest),
        gap=5,
    )
    said = ", ".join(number(s, 2) for s in scores)
    return Drawing(
        column(
            arriving,
            beside([_disc(key, "key", longest) for key in keys]),
            beside(turning),
            text("cache: keys, already turned", SMALL),
            drawer,
            text("dot product of each with the turned query", SMALL),
            asking,
            text("scores", SMALL),
            beside([vector([s], "query", digits=2) for s in scores]),
            gap=3,
        ),
        "Keys are turned before they enter the cache",
        f"The keys of {', '.join(words)} are turned by {degrees:g}° times their positions 0 to "
        f"{last} and kept. The query of {words[-1]}, turned by {degrees * last:g}°, has the scores "
        f"{said} with them; nothing in the cache is touched.",
    )


def _disc(x: Vector, role: str, longest: float, radius: float = 19.0) -> Shape:
    """An arrow in a circle, which a vector of the length ``longest`` just reaches."""
    unit = (radius - 2) / longest
    tip = radius + unit * x[0], radius - unit * x[1]
    ring = f'<circle class="lt-{role}" cx="{radius:g}" cy="{radius:g}" r="{radius - 1:g}"/>'
    body = ring + line([(radius, radius), tip], role, head=True, width=2)
    return Shape(2 * radius, 2 * radius, body)


def draw_wavelengths(before: Tensor, after: Mapping[str, Tensor], trained: int,
                     factor: float) -> Drawing:  # fmt: skip
    """Tokens of one turn of each pair, before and after each scaling, on a logarithmic axis."""
    old = (math.tau / before).tolist()
    new = {name: (math.tau / frequencies).tolist() for name, frequencies in after.items()}
    low, high = min(old) / 1.25, 1.25 * max(w for some in new.values() for w in some)

    def place(wavelength: float) -> float:
        return 10 + AXIS * math.log(wavelength / low) / math.log(high / low)

    levels = trained, factor * trained
    panels = [_marks(place, {f"{level:,.0f}": level for level in levels})]
    panels += [_stretch(place, name, old, some, levels) for name, some in new.items()]
    panels.append(_marks(place, {f"{10**n:,}": 10**n for n in (1, 2, 3, 4)}))
    panels.append(text("tokens of one turn (logarithmic)", SMALL))
    said = "; ".join(
        f"{name} makes them {', '.join(f'{b / a:.3g}' for a, b in zip(old, some, strict=True))} "
        "times as long" for name, some in new.items()
    )  # fmt: skip
    return Drawing(
        column(*panels, gap=1),
        f"What each scaling does to the {len(old)} wavelengths",
        f"Wavelengths of {', '.join(f'{w:,.0f}' for w in old)} tokens, beside the {trained} of "
        f"training and {factor:g} times as many. {said}.",
    )


def _stretch(
    place: Place, name: str, old: Sequence[float], new: Sequence[float], levels: Sequence[float]
) -> Shape:
    body = [line([(place(at), -2), (place(at), 42)], "off") for at in levels]
    for a, b in zip(old, new, strict=True):
        body.append(line([(place(a), 12), (place(b), 34)]))
    for wavelengths, y, role in ((old, 12, "plain"), (new, 34, "new")):
        body += [f'<circle class="lt-{role}" cx="{place(w):.4g}" cy="{y}" r="4"/>'
                 for w in wavelengths]  # fmt: skip
    label = text(name, SMALL)
    return row(column(space(76), label, gap=0), Shape(AXIS + 10, 44, "".join(body)), gap=2)


def _marks(place: Place, marks: Mapping[str, float]) -> Shape:
    """Numbers above an axis."""
    labels = [text(name, SMALL) for name in marks]
    placed = [(label, 78 + place(at) - label.width / 2, 0)
              for label, at in zip(labels, marks.values(), strict=True)]  # fmt: skip
    return over(88 + AXIS, 1.3 * SMALL, *placed)


def _arc(
    middle: float, radius: float, start: float, degrees: float, width: float, role: str
) -> str:
    """Around (middle, middle) from ``start`` on, counterclockwise if ``degrees`` are positive."""
    (x0, y0), (x1, y1) = (_at(middle, radius, a) for a in (start, start + degrees))
    large, sweep = int(abs(degrees) > 180), int(degrees < 0)
    return (
        f'<path class="lt-line lt-line-{role}" style="stroke-width:{width:g}" '
        f'd="M{x0:.4g} {y0:.4g}A{radius:g} {radius:g} 0 {large} {sweep} {x1:.4g} {y1:.4g}"/>'
    )


def _at(middle: float, radius: float, degrees: float) -> Vector:
    """The point in this direction from (middle, middle), on a page whose y grows downwards."""
    angle = math.radians(degrees)
    return middle + radius * math.cos(angle), middle - radius * math.sin(angle)


def _angle(x: Vector) -> float:
    return math.degrees(math.atan2(x[1], x[0]))


def _pair(x: Vector) -> str:
    return f"({number(x[0], 2)}, {number(x[1], 2)})"


def _turns(turns: float) -> str:
    return f"{turns:.2g}" if turns >= 0.02 else f"{turns:.1g}"
