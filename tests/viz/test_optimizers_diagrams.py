"""Drawings of chapter 10: paths, circles, state, schedules and noise are those that were given."""

import re
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

from llmtutor.optim import AdamW, Muon, newton_schulz
from llmtutor.optim.schedules import wsd
from llmtutor.viz.diagrams import optimizers as draw
from llmtutor.viz.diagrams.shapes import Drawing


def circles(drawing: Drawing, role: str) -> list[tuple[float, float]]:
    body = ElementTree.fromstring(f"<g>{drawing.shape.body}</g>")
    found = [c for c in body.iter("circle") if c.get("class") == f"lt-{role}"]
    return [(float(c.get("cx", "")), float(c.get("cy", ""))) for c in found]


def words(drawing: Drawing) -> list[str]:
    body = ElementTree.fromstring(f"<g>{drawing.shape.body}</g>")
    return ["".join(t.itertext()) for t in body.iter("text")]


def test_a_walk_is_drawn_step_by_step_among_rings_of_equal_loss() -> None:
    path = torch.tensor([[-2.0, 1.0], [-1.0, 0.5], [0.0, -1.0]])
    drawing = draw.draw_valley({"one": path, "two": path}, (1.0, 4.0), "A walk")
    x0, y0 = draw.MINIMUM
    assert circles(drawing, "value") == 2 * [(x0, y0)]
    assert circles(drawing, "new") == 2 * [(x0 - 2 * draw.SCALE, y0 - draw.SCALE)]
    steps = [(x0 - draw.SCALE, y0 - draw.SCALE / 2), (x0, y0 + draw.SCALE)]
    assert circles(drawing, "weight") == 2 * steps
    radii = re.findall(r'rx="([\d.]+)" ry="([\d.]+)"', drawing.shape.body)
    assert all(float(rx) == pytest.approx(2 * float(ry), rel=1e-3) for rx, ry in radii)
    assert words(drawing) == ["one: loss 2", "two: loss 2"]  # ½ · 4 · 1²
    assert "after 2 steps: one is at (0.00, −1.00), loss 2" in drawing.description


def test_a_circle_becomes_an_ellipse_that_spans_the_singular_values() -> None:
    g = torch.tensor([[3.0, 1.0], [1.0, 3.0]])
    step = newton_schulz(g, dtype=torch.float64)
    drawing = draw.draw_circles({"g": g, "signs": g.sign(), "step": step}, "Circles")
    assert words(drawing)[5] == "4.00 and 2.00" and "2.00 and 0.00" in words(drawing)
    assert "step: (0.90, −0.21; −0.21, 0.90), singular values 1.11 and 0.69" in drawing.description
    edges = re.findall(r'polygon class="lt-vector" points="([^"]+)"', drawing.shape.body)
    spans = []
    for edge in edges:
        points = torch.tensor([[float(x) for x in p.split(",")] for p in edge.split(" ")])
        spans.append((points - points[:-1].mean(0)).norm(dim=1))
    assert all(float(span.max()) == pytest.approx(draw.RADIUS, rel=0.01) for span in spans)
    shares = [float(span.min() / span.max()) for span in spans]
    assert shares == pytest.approx([0.5, 0.0, 0.69 / 1.11], abs=0.02)
    assert drawing.shape.body.count("lt-head") == 5  # a segment has one axis


def test_state_is_counted_in_tensors_of_the_size_of_the_weights() -> None:
    kept = {}
    for name, kind in (("AdamW", AdamW), ("Muon", Muon)):
        p = nn.Parameter(torch.ones(2, 2))
        p.grad = torch.eye(2)
        optimizer = kind([p], lr=0.1)
        optimizer.step()
        kept[name] = [n for n, t in optimizer.state[p].items() if t.shape == p.shape]
    drawing = draw.draw_state({"SGD": [], **kept}, 1_000_000_000)
    sizes = [word for word in words(drawing) if word.endswith("GB")]
    assert sizes == ["4 GB", "12 GB", "8 GB"]
    cells = draw.ROWS * draw.COLUMNS
    assert drawing.shape.body.count('class="lt-weight"') == 3 * cells
    assert drawing.shape.body.count('class="lt-cache"') == 3 * cells
    assert "AdamW keeps exp_avg and exp_avg_sq beside the weights" in drawing.description


def test_stretches_of_a_schedule_lie_where_they_begin_and_end() -> None:
    factor = wsd(100, 20, 30)
    parts = ("warm-up", 0, 20), ("stable", 20, 70), ("decay", 70, 100)
    drawing = draw.draw_schedules({"WSD": ([factor(s) for s in range(100)], parts)}, "One")
    edges = re.findall(r'rect class="lt-\w+" x="([\d.]+)" width="([\d.]+)"', drawing.shape.body)
    width = draw.WIDEST - 4
    assert [float(x) / width for x, _ in edges] == pytest.approx([0, 0.2, 0.7], abs=1e-3)
    assert [float(w) / width for _, w in edges] == pytest.approx([0.2, 0.5, 0.3], abs=1e-3)
    (curve,) = re.findall(r'lt-line-query"[^>]* points="([^"]+)"', drawing.shape.body)
    heights = [float(point.split(",")[1]) for point in curve.split(" ")]
    assert len(heights) == 100 and heights[20] == heights[69] == min(heights)
    assert "stable from 20 to 70" in drawing.description


def test_batches_gather_around_the_mean_as_they_grow() -> None:
    windows = torch.tensor([[2.0, 0.0], [0.0, 0.0]]).repeat(48, 1)  # pairs have no noise
    drawing = draw.draw_noise(windows, (1, 2), n_arrows=4)
    dots = circles(drawing, "vector")
    assert len(dots) == 8 and len(set(dots[:4])) == 2 and len(set(dots[4:])) == 1
    assert "of length 1.00" in drawing.description
    assert "1 window each: 1.00 from the mean of all; 2 windows each: 0.00" in drawing.description
