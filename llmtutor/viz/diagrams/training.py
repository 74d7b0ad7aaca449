"""Drawings, chapter 11: a step as a loop, its memory, number formats, curves that are ill."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from llmtutor.viz.diagrams.language import number
from llmtutor.viz.diagrams.shapes import (
    SMALL,
    WIDEST,
    Drawing,
    Shape,
    box,
    column,
    line,
    over,
    row,
    space,
    text,
)

ROW, ACT, STORE, BETWEEN, LEFT = 46.0, 118.0, 118.0, 74.0, 26.0
"""Units of the loop: a row's height; widths of an act, a store, what is between, the way back."""
STORES = {
    "weights": "weight",
    "activations": "value",
    "gradients": "vector",
    "optimizer state": "cache",
}
"""What memory holds during a step, and the colour of each, as in chapter 13."""
Sizes = Mapping[str, float]
"""Bytes by store."""


def draw_step(loss: float, norm: float, clip: float, lr: float) -> Drawing:
    """The acts of a step from top to bottom, what each reads and writes, and the way back."""
    shorter = min(norm, clip)
    acts = (
        ("zero_grad", "gradients", "out", "empties"),
        ("forward", "weights", "in", "reads"),
        (f"loss {number(loss, 2)}", "activations", "out", "keeps"),
        ("backward", "gradients", "out", "adds"),
        ("clip", "gradients", "out", f"{number(norm, 2)} → {number(shorter, 2)}"),
        ("optimizer step", "optimizer state", "both", "updates"),
        ("", "weights", "out", f"lr {lr:.4g}"),
    )
    placed: list[tuple[Shape, float, float]] = []
    for i, (act, store, way, words) in enumerate(acts):
        y = i * ROW
        if act:
            tall = 2 * ROW - 14 if act == "optimizer step" else ROW - 14
            placed.append((box(act, width=ACT, height=tall), LEFT, y))
        placed.append((_store(store), LEFT + ACT + BETWEEN, y))
        placed.append((_way(way, words), LEFT + ACT, y))
        if 0 < i < len(acts) - 1:
            ends = [(LEFT + ACT / 2, y - 14), (LEFT + ACT / 2, y)]
            placed.append((Shape(0, 0, line(ends, head=True)), 0, 0))
    bottom, top = (len(acts) - 1) * ROW + 8, (ROW - 14) / 2
    back = [(LEFT, bottom), (6.0, bottom), (6.0, top), (LEFT, top)]
    placed.append((Shape(0, 0, line(back, head=True)), 0, 0))
    height = (len(acts) - 1) * ROW + ROW - 14
    return Drawing(
        over(LEFT + ACT + BETWEEN + STORE, height, *placed),
        "A training step",
        "zero_grad empties the gradients; forward reads the weights; the loss, "
        f"{number(loss, 2)} nats, leaves activations behind; backward adds to the gradients; clip "
        f"shortens them from a norm of {number(norm, 2)} to {number(shorter, 2)}; the optimizer "
        f"updates its state and moves the weights at a rate of {lr:.4g}. Then comes the next step.",
    )


def _store(name: str) -> Shape:
    return box(text(name, SMALL), STORES[name], width=STORE, height=ROW - 14)


def _way(way: str, words: str) -> Shape:
    """An arrow between an act and a store, with a word above it."""
    ends = [(4.0, 20.0), (BETWEEN - 4, 20.0)]
    drawn = ""
    if way in ("out", "both"):
        drawn += line(ends, head=True)
    if way in ("in", "both"):
        drawn += line(ends[::-1], head=True)
    label = text(words, SMALL)
    return over(BETWEEN, ROW, (Shape(0, 0, drawn), 0, 0), (label, (BETWEEN - label.width) / 2, 1))


def draw_memory(cases: Mapping[str, Sizes]) -> Drawing:
    """What memory holds at its fullest, a bar for each case, its parts as long as their bytes."""
    largest = max(sum(sizes.values()) for sizes in cases.values())
    width = WIDEST - 4
    bars, said = [], []
    for name, sizes in cases.items():
        parts = []
        for store, size in sizes.items():
            long = width * size / largest
            words = text(megabytes(size), SMALL)
            fits = words.width + 6 <= long
            inside = words.at((long - words.width) / 2, (22 - words.height) / 2) if fits else ""
            frame = f'<rect class="lt-{STORES[store]}" width="{long:.4g}" height="22"/>'
            parts.append(Shape(long, 22, frame + inside))
        total = sum(sizes.values())
        title = text(f"{name}: {megabytes(total)}", SMALL, bold=True)
        bars.append(column(title, row(*parts, gap=0), gap=3, align="start"))
        each = ", ".join(f"{store} {megabytes(size)}" for store, size in sizes.items())
        said.append(f"{name}: {megabytes(total)}, of which {each}")
    half = len(STORES) // 2
    keys = [row(_swatch(role), text(store, SMALL), gap=5) for store, role in STORES.items()]
    legend = row(
        column(*keys[:half], gap=5, align="start"), column(*keys[half:], gap=5, align="start"),
        gap=30, align="start",
    )  # fmt: skip
    shape = column(*bars, space(height=2), legend, gap=9, align="start")
    return Drawing(shape, "What memory holds during a step", f"{'. '.join(said)}.")


def _swatch(role: str) -> Shape:
    return Shape(14, 12, f'<rect class="lt-{role}" width="14" height="12"/>')


def megabytes(size: float) -> str:
    """A million bytes each.

    >>> megabytes(1_234_000), megabytes(45_600_000)
    ('1.2 MB', '46 MB')
    """
    millions = size / 1e6
    return f"{millions:.1f} MB" if millions < 10 else f"{millions:.0f} MB"


def draw_checkpointing(n_blocks: int, inside: float, between: float) -> Drawing:
    """The activations of ``n_blocks`` blocks: all kept, and kept at the borders alone.

    ``inside`` are the bytes that one block keeps, ``between`` those of its input alone. The last
    line is the backward pass at the last block, which was taken forward once more.
    """
    lanes = (
        ("everything is kept", [True] * n_blocks),
        ("checkpointed: only the borders are kept", [False] * n_blocks),
        (
            f"backward, at block {n_blocks - 1}: its inside is made again",
            [i == n_blocks - 1 for i in range(n_blocks)],
        ),
    )
    drawn, said = [], []
    kept_role = STORES["activations"]
    for i, (words, kept) in enumerate(lanes):
        borders = 0.0 if i == 0 else n_blocks * between
        total = borders + sum(kept) * inside
        pieces = []
        for block, whole in enumerate(kept):
            border = Shape(8, 34, f'<rect class="lt-{kept_role}" width="8" height="34"/>')
            role = kept_role if whole else "off"
            inner = box(text(str(block)), role, width=44, height=34, dashed=not whole)
            pieces += [border, inner]
        title = text(words, SMALL, bold=True)
        amount = text(megabytes(total), SMALL)
        drawn.append(column(title, row(*pieces, gap=3), amount, gap=4, align="start"))
        said.append(f"{words}, {megabytes(total)}")
    return Drawing(
        column(*drawn, gap=12, align="start"),
        "Which activations are kept",
        f"{n_blocks} blocks. {'. '.join(f'{s[0].upper()}{s[1:]}' for s in said)}. The narrow box "
        "before a block is its input, the wide one all that its backward pass needs.",
    )


FORMATS = {"float32": (8, 23), "float16": (5, 10), "bfloat16": (8, 7)}
"""Bits of exponent and of mantissa; in front of them stands a sign."""
BIT = 10.6
"""Units of a side of a bit."""


def draw_formats(value: float) -> Drawing:
    """The bits of a number in each format, and what they are read back as."""
    rows, said = [], []
    for name, (n_exponent, n_mantissa) in FORMATS.items():
        kind = getattr(torch, name)
        bits = bits_of(value, name)
        back = float(torch.tensor(value, dtype=kind))
        roles = ["state"] + n_exponent * ["key"] + n_mantissa * ["query"]
        cells = row(*(_bit(b, role) for b, role in zip(bits, roles, strict=True)), gap=0)
        largest, step = torch.finfo(kind).max, torch.finfo(kind).eps
        head = row(text(name, bold=True), text(f"{value:g} is read back as {back:.9g}", SMALL))
        foot = text(f"largest {largest:.1e}, next to 1 comes 1 + {step:.1e}", SMALL)
        rows.append(column(head, cells, foot, gap=3, align="start"))
        said.append(
            f"{name}: sign {bits[0]}, exponent {bits[1 : 1 + n_exponent]}, mantissa "
            f"{bits[1 + n_exponent :]}; read back as {back:.9g}; largest {largest:.1e}; the next "
            f"number above 1 is 1 + {step:.1e}"
        )
    legend = row(
        *(
            row(_bit("", role), text(words, SMALL), gap=4)
            for words, role in (("sign", "state"), ("exponent", "key"), ("mantissa", "query"))
        ),
        gap=16,
    )
    return Drawing(
        column(legend, *rows, gap=11, align="start"), "Three number formats", f"{'. '.join(said)}."
    )


def bits_of(value: float, name: str) -> str:
    """As zeros and ones, the sign first.

    >>> bits_of(1.0, "bfloat16"), bits_of(-2.0, "float16")
    ('0011111110000000', '1100000000000000')
    """
    back = float(torch.tensor(value, dtype=getattr(torch, name)))
    if name == "float16":
        return f"{struct.unpack('<H', struct.pack('<e', back))[0]:016b}"
    whole = f"{struct.unpack('<I', struct.pack('<f', back))[0]:032b}"
    return whole[:16] if name == "bfloat16" else whole


def _bit(bit: str, role: str) -> Shape:
    frame = f'<rect class="lt-{role}" width="{BIT}" height="17"/>'
    digit = text(bit, 9, mono=True)
    inside = digit.at((BIT - digit.width) / 2, (17 - digit.height) / 2) if bit else ""
    return Shape(BIT, 17, frame + inside)


@dataclass(frozen=True)
class Panel:
    """One run: (step, loss) of its training and of its validation."""

    name: str
    training: Sequence[tuple[float, float]]
    validation: Sequence[tuple[float, float]]


PANEL = (150.0, 96.0)
"""Width and height of the plotted part of a panel."""


def draw_gallery(panels: Sequence[Panel], healthy: Panel, top: float = 5.0) -> Drawing:
    """Panels in pairs: training as a line, validation as dots, the healthy run in grey.

    Losses from 0 to ``top``; what lies above is drawn at the upper edge.
    """
    drawn = [_panel(panel, healthy, top) for panel in panels]
    pairs = [row(*drawn[i : i + 2], gap=12, align="start") for i in range(0, len(drawn), 2)]
    said = "; ".join(
        f"{p.name}: training from {number(p.training[0][1], 2)} to "
        f"{number(p.training[-1][1], 2)}, lowest {number(min(y for _, y in p.training), 2)}, "
        f"validation at the end {number(p.validation[-1][1], 2)}"
        for p in (healthy, *panels)
    )
    return Drawing(
        column(_legend(healthy.name), *pairs, gap=10, align="start"),
        "Which illness is which?",
        f"Loss by step. {said}.",
    )


def _legend(healthy: str) -> Shape:
    stroke = Shape(18, 10, line([(0, 5), (18, 5)], "query"))
    dot = Shape(10, 10, _dot(5, 5))
    grey = Shape(18, 10, line([(0, 5), (18, 5)], "off"))
    pairs = ((stroke, "training"), (dot, "validation"), (grey, f"{healthy}, training"))
    marks = row(*(row(mark, text(words, SMALL), gap=4) for mark, words in pairs), gap=12)
    return column(text("loss in nats per character, by step", SMALL), marks, gap=3, align="start")


def _dot(x: float, y: float) -> str:
    return f'<circle class="lt-key" cx="{x:.4g}" cy="{y:.4g}" r="2.6"/>'


def _panel(panel: Panel, healthy: Panel, top: float) -> Shape:
    width, height = PANEL
    last = max(x for x, _ in panel.training)

    def at(x: float, y: float) -> tuple[float, float]:
        return width * x / last, height * (1 - min(max(y, 0.0), top) / top)

    frame = f'<rect class="lt-plain" width="{width:g}" height="{height:g}"/>'
    curves = line([at(*p) for p in healthy.training], "off")
    curves += line([at(*p) for p in panel.training], "query", width=1.8)
    dots = "".join(_dot(*at(*p)) for p in panel.validation)
    ticks = [(text(f"{level:g}", 9), level) for level in (0.0, top)]
    placed = [(Shape(0, 0, frame + curves + dots), 14.0, 0.0)]
    placed += [(t, 10 - t.width, at(0, level)[1] - (2 if level else 10)) for t, level in ticks]
    plot = over(width + 16, height, *placed)
    first, end = text("step 0", 9), text(f"{last:g}", 9)
    foot = over(width + 16, first.height, (first, 14, 0), (end, 14 + width - end.width, 0))
    return column(text(panel.name, bold=True), plot, foot, gap=3)
