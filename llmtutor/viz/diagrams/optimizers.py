"""Drawings, chapter 10: ways down a valley, what a step does to a circle, state, schedules, noise.

Each is made from the numbers of the page: paths that optimizers have walked, matrices, tensors that
an optimizer keeps, factors of a schedule, gradients of batches.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from llmtutor.viz.diagrams.language import matrix, number
from llmtutor.viz.diagrams.shapes import (
    SMALL,
    WIDEST,
    Drawing,
    Shape,
    column,
    line,
    lines,
    named,
    over,
    row,
    space,
    text,
)

Stretch = tuple[str, int, int]
"""Name, first step, and the step after the last."""


def _window(width: float, height: float, body: str) -> Shape:
    """A frame that cuts off what lies outside of it."""
    frame = f'<rect class="lt-plain" width="{width:g}" height="{height:g}" rx="3"/>'
    inside = f'<svg width="{width:g}" height="{height:g}">{body}</svg>'
    return Shape(width, height, frame + inside)


def _dot(x: float, y: float, role: str, radius: float) -> str:
    return f'<circle class="lt-{role}" cx="{x:.4g}" cy="{y:.4g}" r="{radius:g}"/>'


# Ways down a valley.

WIDTH, HEIGHT, SCALE = 172.0, 122.0, 26.0
"""Of one valley, and units for 1."""
MINIMUM = 124.0, 61.0
RINGS = (1, 2, 3, 4, 5, 7, 9)
"""Where contours cross the axis of the flat direction."""


def draw_valley(paths: Mapping[str, Tensor], curvature: tuple[float, float], title: str) -> Drawing:
    """The ways (steps + 1, 2) of weights (a, b) in the valley of ½ (c_a a² + c_b b²), each alone.

    A ring joins points of equal loss. All ways begin at the same place and have as many steps.
    """
    panels, said = [], []
    for name, path in paths.items():
        loss = f"{_loss(path[-1], curvature):.2g}"
        loss = f"{float(loss):g}"  # 110, not 1.1e+02
        panels.append(named(_valley(path, curvature), f"{name}: loss {loss}"))
        a, b = path[-1].tolist()
        said.append(f"{name} is at ({number(a, 2)}, {number(b, 2)}), loss {loss}")
    start, steps = next(iter(paths.values()))[0].tolist(), len(next(iter(paths.values()))) - 1
    rows = [row(*panels[i : i + 2], gap=10, align="start") for i in range(0, len(panels), 2)]
    return Drawing(
        column(*rows, gap=10, align="start"),
        title,
        f"From ({number(start[0])}, {number(start[1])}), after {steps} steps: {'; '.join(said)}.",
    )


def _loss(w: Tensor, curvature: tuple[float, float]) -> float:
    return sum(c * float(x) ** 2 for c, x in zip(curvature, w, strict=True)) / 2


def _valley(path: Tensor, curvature: tuple[float, float]) -> Shape:
    x0, y0 = MINIMUM
    narrow = (curvature[0] / curvature[1]) ** 0.5
    body = "".join(
        f'<ellipse class="lt-hatch" style="fill:none" cx="{x0:g}" cy="{y0:g}" '
        f'rx="{SCALE * ring:g}" ry="{SCALE * ring * narrow:.4g}"/>'
        for ring in RINGS
    )
    points = [(x0 + SCALE * a, y0 - SCALE * b) for a, b in path.double().clamp(-20, 20).tolist()]
    body += line(points) + "".join(_dot(x, y, "weight", 2.4) for x, y in points[1:])
    return _window(WIDTH, HEIGHT, body + _dot(*points[0], "new", 4) + _dot(x0, y0, "value", 4))


# What a step does to a circle.

RADIUS = 42.0


def draw_circles(steps: Mapping[str, Tensor], title: str) -> Drawing:
    """Matrices (2, 2), and what each makes of a circle: an ellipse that spans singular values.

    The largest singular value has the same length in all pictures.
    """
    panels, said = [], []
    for name, step in steps.items():
        large, small = torch.linalg.svdvals(step.double()).tolist()
        below = f"{number(large, 2)} and {number(small, 2)}"
        cells = column(lines(name, SMALL), matrix(step, digits=2), gap=3)
        panels.append(column(cells, _ellipse(step.double()), text(below, SMALL), gap=6))
        entries = "; ".join(", ".join(number(v, 2) for v in line.tolist()) for line in step)
        said.append(f"{name.replace(chr(10), ' ')}: ({entries}), singular values {below}")
    return Drawing(row(*panels, gap=10, align="end"), title, f"{'. '.join(said)}.")


def _ellipse(step: Tensor) -> Shape:
    u, s, _ = torch.linalg.svd(step)
    side, middle = 2 * RADIUS + 8, RADIUS + 4
    turns = torch.linspace(0, 2 * torch.pi, 61, dtype=step.dtype)
    circle = torch.stack((turns.cos(), turns.sin()))
    edge = RADIUS * (u @ torch.diag(s / s[0]) @ circle).T
    places = " ".join(f"{middle + x:.4g},{middle - y:.4g}" for x, y in edge.tolist())
    axes = [RADIUS * s[i] / s[0] * u[:, i] for i in range(2)]
    ends = [(middle + float(x), middle - float(y)) for x, y in axes]
    body = f'<polygon class="lt-vector" points="{places}"/>'
    # A segment has no second axis to be drawn.
    body += "".join(
        line([(middle, middle), end], head=True)
        for end, size in zip(ends, s.tolist(), strict=True)
        if size > 1e-6
    )
    return Shape(side, side, body)


# What an optimizer keeps.

ROWS, COLUMNS, SIDE = 3, 4, 9.0


def draw_state(kept: Mapping[str, Sequence[str]], n_parameters: int) -> Drawing:
    """By optimizer, the names of the tensors that it keeps, each as large as the weights.

    The size is for that many parameters in float32.
    """
    lines_of, said = [], []
    label_width = max(text(name, SMALL, bold=True).width for name in kept)
    widest = max(len(names) for names in kept.values())
    for name, names in kept.items():
        tensors = [("weights", "weight"), *((other, "cache") for other in names)]
        size = f"{4 * len(tensors) * n_parameters / 1e9:.0f} GB"
        grids = [_grid(tensor, role) for tensor, role in tensors]
        empty = [space(grids[0].width)] * (widest - len(names))
        label = text(name, SMALL, bold=True)
        label = row(label, space(label_width - label.width), gap=0)
        lines_of.append(row(label, *grids, *empty, text(size, SMALL), gap=6))
        beside = " and ".join(names) or "nothing"
        said.append(f"{name} keeps {beside} beside the weights: {size}")
    return Drawing(
        column(*lines_of, gap=10, align="start"),
        "What each optimizer keeps beside a matrix of weights",
        f"In float32, for {n_parameters / 1e9:.0f} billion parameters: {'. '.join(said)}.",
    )


NAMES_WIDE = 70.0


def _grid(label: str, role: str) -> Shape:
    """Cells of a matrix, without numbers."""
    cells = "".join(
        f'<rect class="lt-{role}" x="{SIDE * j:g}" y="{SIDE * i:g}" width="{SIDE:g}" '
        f'height="{SIDE:g}"/>'
        for i in range(ROWS)
        for j in range(COLUMNS)
    )
    name = label.replace("m_b", "m_\nb")  # the one that is too long for a line
    grid = named(Shape(SIDE * COLUMNS, SIDE * ROWS, cells), name, below=True)
    return over(NAMES_WIDE, grid.height, (grid, (NAMES_WIDE - grid.width) / 2, 0))


# A learning rate over time.

HIGH = 62.0


def draw_schedules(
    schedules: Mapping[str, tuple[Sequence[float], Sequence[Stretch]]], title: str
) -> Drawing:
    """For each schedule its factors by step, and the stretches that have a name."""
    panels, said = [], []
    for name, (factors, stretches) in schedules.items():
        width, steps = WIDEST - 4.0, len(factors)
        body, zero = "", HIGH - 16
        for i, (label, start, end) in enumerate(stretches):
            x, wide = width * start / steps, width * (end - start) / steps
            look = ("off", "plain")[i % 2]
            body += (
                f'<rect class="lt-{look}" x="{x:.4g}" width="{wide:.4g}" height="{HIGH + 12:g}"/>'
            )
            words = text(label, SMALL)
            body += words.at(x + (wide - words.width) / 2, HIGH - 6)
        points = [
            (width * (i + 0.5) / steps, 6 + (zero - 6) * (1 - factor))
            for i, factor in enumerate(factors)
        ]
        body += line([(0, zero), (width, zero)], "off") + line(points, "query", width=2.4)
        panels.append(
            column(
                text(name, SMALL, bold=True), Shape(width, HIGH + 12, body), gap=3, align="start"
            )
        )
        parts = ", ".join(f"{label} from {start} to {end}" for label, start, end in stretches)
        said.append(f"{name}: {parts}; it ends at {number(factors[-1], 2)} of the peak")
    return Drawing(column(*panels, gap=10, align="start"), title, f"{'. '.join(said)}.")


# Signal and noise.

FIELD = 112.0


def draw_noise(windows: Tensor, batches: Sequence[int], n_arrows: int = 12) -> Drawing:
    """Gradients of windows (n, 2), and means of batches of them around the mean of all.

    Batches follow each other in ``windows``; of each size the first ``n_arrows`` are drawn.
    """
    windows = windows.double()
    mean = windows.mean(0)
    unit = FIELD / (2.1 * float(windows[:n_arrows].norm(dim=1).max()))
    panels, said = [], []
    for batch in batches:
        means = windows[: batch * n_arrows].view(n_arrows, batch, 2).mean(1)
        spread = float((means - mean).square().sum(1).mean().sqrt())
        ends = [_end(g, unit) for g in means]
        start = _end(torch.zeros(2), unit)
        body = "".join(line([start, end], "off") + _dot(*end, "vector", 2.6) for end in ends)
        body += line([start, _end(mean, unit)], "query", head=True, width=2.6)
        words = f"{batch} window{'s' * (batch > 1)} each"
        panels.append(named(_window(FIELD, FIELD, body), words, below=True))
        said.append(f"{words}: {number(spread, 2)} from the mean of all")
    size = number(float(mean.norm()), 2)
    return Drawing(
        row(*panels, gap=8),
        "Gradients of batches around the true one",
        f"The arrow is the mean of all gradients, of length {size}. {n_arrows} batches of "
        f"{'; '.join(said)} (root mean square).",
    )


def _end(g: Tensor, unit: float) -> tuple[float, float]:
    x, y = g.tolist()
    return FIELD / 2 + unit * x - 16, FIELD / 2 - unit * y
